"""Class facts travel from the dataset to the modules that need them."""

from __future__ import annotations

from mmengine.hooks import Hook

from mmlt.engine.anchors import check_corpus
from mmlt.engine.classes import tell_classes
from mmlt.errors import InputError
from mmlt.models.heads.anchor_head import AnchorHead
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


@HOOKS.register_module()
class ClassInfoHook(Hook):
    """Hand class names, training counts and class texts to every module that asks for them.

    A module asks by a method ``set_class_info(info)`` and gets a
    :class:`ClassInfo` before weights are loaded; so nobody types counts or
    class names into a config. Names and texts come from the dataset's metainfo,
    counts from the labels of the train dataset as it is built; what is not
    known is None. See :func:`tell_classes`.

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
        """Find the datasets that are there, and tell the modules."""
        tell_classes(runner, split=self.split)

    def before_train(self, runner) -> None:
        """Anchors have been read now: they are of the classes' texts, or of others."""
        for module in unwrap(runner.model).modules():
            if isinstance(module, AnchorHead):
                check_corpus(module)
