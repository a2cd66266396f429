"""A checkpoint that does not belong is refused before it does harm."""

from __future__ import annotations

import os.path as osp

from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import BaseLoop, CheckpointLoader
from mmpretrain.models.heads import ClsHead
from torch import nn

from mmlt.checkpoints import latest_checkpoint, read_config_text
from mmlt.checkpoints.comparison import checkpoint_classes, first_difference
from mmlt.checkpoints.weights import bare_names, fit_state
from mmlt.engine.classes import built_datasets, tell_classes
from mmlt.engine.hooks.class_info import ClassInfoHook
from mmlt.engine.identity import resumable
from mmlt.errors import InputError
from mmlt.registry import HOOKS
from mmlt.utils import unwrap
from mmlt.utils.classes import check_same_classes


@HOOKS.register_module()
class CheckpointGuardHook(Hook):
    """Check a checkpoint against the model before its weights are used.

    MMEngine only logs weights of another shape and goes on with random ones.
    Here that is an error, and so are a test with weights missing, a resume with
    another model or other classes, and low-rank parts of :class:`MORE` that the
    model has no place for. A module that has more to say of the weights that a
    training starts from has a method ``check_checkpoint(state_dict, source)``.

    Raises:
        InputError: The checkpoint does not belong to this config.
    """

    priority = 'VERY_HIGH'

    def before_run(self, runner) -> None:
        """Compare the classes of all datasets, where no ClassInfoHook does it; look at files to start from."""
        if not any(isinstance(hook, ClassInfoHook) for hook in runner.hooks):
            tell_classes(runner, modules=False)
        if not is_testing(runner) and not getattr(runner, '_resume', False):
            for name, module in unwrap(runner.model).named_modules():
                _check_start(name or 'model', module)

    def before_train(self, runner) -> None:
        """All towers have their weights now; a module that can tell has a method ``check_filled()``."""
        model: BaseModel = unwrap(runner.model)
        for module in model.modules():
            if hasattr(module, 'check_filled'):
                module.check_filled()

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare shapes, names and, on resume, the model's config."""
        model: BaseModel = unwrap(runner.model)
        source = source_of(runner)
        if getattr(runner, '_resume', False) and not is_testing(runner):
            self._same_config(runner, checkpoint, source)
        self._same_classes(runner, checkpoint, source)
        state = checkpoint.get('state_dict', checkpoint)
        state = bare_names(state)
        testing = is_testing(runner)
        fit_state(model, state).require('use' if testing else 'start', source)
        if not getattr(runner, '_resume', False) and (not testing or getattr(runner, 'starts_from_stage', False)):
            for module in model.modules():
                if hasattr(module, 'check_checkpoint'):
                    module.check_checkpoint(state, source)

    def _same_classes(self, runner, checkpoint: dict, source: str) -> None:
        """A head that learned classes knows them by their order."""
        datasets = built_datasets(runner)
        split = 'test' if is_testing(runner) or 'train' not in datasets else 'train'
        if split not in datasets or any(isinstance(h, ClassInfoHook) and h.split == 'val' for h in runner.hooks):
            return
        heads = [m for m in unwrap(runner.model).modules() if isinstance(m, ClsHead)]
        state = checkpoint.get('state_dict', checkpoint)
        if not any('head.' in name for name in state) or all(getattr(h, 'takes_any_classes', False) for h in heads):
            return
        check_same_classes(
            {
                f"'{source}'": checkpoint_classes(checkpoint),
                f'the {split} dataset': (getattr(datasets[split], 'metainfo', None) or {}).get('classes'),
            },
            "Give the dataset the checkpoint's classes in its order, or take only its backbone with "
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=..., prefix='backbone').",
        )

    def _same_config(self, runner, checkpoint: dict, source: str) -> None:
        text = checkpoint.get('meta', {}).get('cfg')
        if not text:
            return
        old, new = resumable(read_config_text(text, f"'{source}'"), runner.cfg)
        if (difference := first_difference(old.get('model'), new.get('model'), 'model')) is not None:
            raise InputError(
                f"Cannot resume from '{source}', it was made with another config: {difference}. Give the same config "
                '(or another --work-dir), or start anew from its weights with --cfg-options load_from=<checkpoint>.'
            )
        if (difference := first_difference(_without_places(old), _without_places(new))) is not None:
            runner.logger.warning(
                f"The training goes on from '{source}' by another recipe than it began with: {difference}. If that is "
                'not meant, give the same settings again.'
            )


def _check_start(name: str, module: nn.Module) -> None:
    """Whether weights of ``init_cfg=dict(type='Pretrained', ...)``, of which MMEngine takes what fits, fit at all."""
    settings = getattr(module, 'init_cfg', None) or []
    for init in settings if isinstance(settings, (list, tuple)) else [settings]:
        if init.get('type') != 'Pretrained':
            continue
        path, prefix = init['checkpoint'], init.get('prefix')
        content = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
        state = bare_names(content.get('state_dict', content))
        if prefix:
            prefix = f'{prefix.rstrip(".")}.'
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        source = f'{path}{f" ({prefix}*)" if prefix else ""}'
        remedy = "give another prefix, as in prefix='backbone', or the checkpoint of the same architecture"
        fit_state(module, state).require('part', source, f'{name}, which is to start from it by init_cfg', remedy)


def is_testing(runner) -> bool:
    """Whether a runner, MMEngine's too, tests and does not train."""
    idle = hasattr(runner, '_train_loop') and not isinstance(runner._train_loop, BaseLoop)
    return getattr(runner, 'testing', False) or idle


def source_of(runner) -> str:
    """The file that a runner loads weights from now."""
    if getattr(runner, '_resume', False) and not getattr(runner, '_load_from', None):
        return latest_checkpoint(runner.work_dir) or 'the checkpoint'
    return getattr(runner, '_load_from', None) or 'the checkpoint'


def _without_places(recipe):
    """A recipe in which files count by their names: data and work directories may have been moved since."""
    if isinstance(recipe, dict):
        return {k: _without_places(v) for k, v in recipe.items() if k != 'data_root'}
    if isinstance(recipe, list):
        return [_without_places(v) for v in recipe]
    return osp.basename(recipe) if isinstance(recipe, str) and osp.dirname(recipe) else recipe
