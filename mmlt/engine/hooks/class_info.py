"""Class facts travel from the dataset to the modules that need them."""

from __future__ import annotations

from mmengine.hooks import Hook
from mmengine.runner.base_loop import BaseLoop

from mmlt.errors import InputError
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


@HOOKS.register_module()
class ClassInfoHook(Hook):
    """Hand class names, training counts and class texts to every module that asks for them.

    A module asks by a method ``set_class_info(classes, class_counts,
    class_texts)``. It is called before weights are loaded; so nobody types
    counts or class names into a config. They come from the dataset's metainfo;
    what it lacks is None. A module with ``set_num_train_images(number)`` is
    told that, too, by datasets that have it (multi-label ones, whose counts do
    not add up to it).

    Args:
        split (str): Whose dataset tells: 'train' (the train dataset if there
            is one, otherwise the evaluated one), or 'val' where a model is
            trained on other classes than it is validated on.
            Defaults to 'train'.

    Raises:
        InputError: The dataset tells no classes, or train and test datasets
            have different ones.
    """

    priority = 'VERY_HIGH'

    def __init__(self, split: str = 'train'):
        if split not in ('train', 'val'):
            raise InputError(f"ClassInfoHook's split is '{split}'; choose 'train' or 'val'.")
        self.split = split

    def before_run(self, runner) -> None:
        """Find the dataset that is there, and tell the modules."""
        model = unwrap(runner.model)
        asking = [m for m in model.modules() if hasattr(m, 'set_class_info')]
        metas = {}
        for name in ('train', 'val', 'test'):
            loop = getattr(runner, f'_{name}_loop')
            if isinstance(loop, BaseLoop):
                metas[name] = getattr(loop.dataloader.dataset, 'metainfo', None) or {}
        order = ('train', 'val', 'test') if self.split == 'train' else ('val', 'test')
        known = [metas[name] for name in order if name in metas]
        if not asking or not known:
            return
        if self.split == 'train':
            _same_classes({name: tuple(meta.get('classes') or ()) for name, meta in metas.items()})
        if not known[0].get('classes'):
            raise InputError('The dataset tells no class names (metainfo has no classes): give it classes=[...].')
        for module in asking:
            module.set_class_info(*(known[0].get(k) for k in ('classes', 'class_counts', 'class_texts')))
            if hasattr(module, 'set_num_train_images') and known[0].get('num_train_images') is not None:
                module.set_num_train_images(known[0]['num_train_images'])


def _same_classes(lists: dict[str, tuple[str, ...]]) -> None:
    (first, reference), *others = lists.items()
    if len({len(classes) for classes in lists.values()}) > 1:
        sizes = ', '.join(f'{name} {len(classes)}' for name, classes in lists.items())
        raise InputError(
            f'The datasets have different class lists: {sizes} classes. Give all of them the same classes=...'
        )
    for name, classes in others:
        for i, (a, b) in enumerate(zip(reference, classes)):
            if a != b:
                raise InputError(
                    f"The datasets have different class lists: class {i} is '{a}' in {first} and '{b}' in {name}. "
                    'Give all of them the same classes=...'
                )
