"""A checkpoint that does not belong is refused before it does harm."""

from __future__ import annotations

import os.path as osp

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import find_latest_checkpoint
from mmpretrain.models.heads import ClsHead

from mmlt.datasets.class_names import check_same_classes
from mmlt.engine.checkpoint import checkpoint_classes, first_difference
from mmlt.engine.classes import built_datasets, tell_classes
from mmlt.engine.hooks.class_info import ClassInfoHook
from mmlt.engine.identity import resumable
from mmlt.errors import InputError
from mmlt.models.more import fit_state_dict, is_split_key
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


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
        """Compare the classes of all datasets, where no ClassInfoHook does it."""
        if not any(isinstance(hook, ClassInfoHook) for hook in runner.hooks):
            tell_classes(runner, modules=False)

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare shapes, names and, on resume, the model's config."""
        model = unwrap(runner.model)
        source = getattr(runner, '_load_from', None) or 'the checkpoint'
        if getattr(runner, '_resume', False) and not runner._load_from:
            source = find_latest_checkpoint(runner.work_dir)
        if getattr(runner, '_resume', False) and not getattr(runner, 'testing', False):
            self._same_config(runner, checkpoint, source)
        self._same_classes(runner, checkpoint, source)
        state = checkpoint.get('state_dict', checkpoint)
        state = {k.removeprefix('module.'): v for k, v in state.items()}
        stored, state = state, fit_state_dict(model, state)
        own = dict(model.named_parameters())
        if (split := next((k for k in state if is_split_key(k) and k not in own), None)) is not None:
            raise InputError(
                f"'{source}' is a checkpoint of MORE that is not merged, and this config's model has no low-rank part "
                f"for '{split}': merge it with tools/model_converters/publish_model.py, or give the config (layers, "
                'exclude) that it was trained with.'
            )
        for name, parameter in own.items():
            if name in state and state[name].shape != parameter.shape:
                raise InputError(
                    f"'{source}' has {name} of shape {tuple(state[name].shape)}, but this config's model has "
                    f'{tuple(parameter.shape)}: it was trained with another backbone, width or class list.'
                )
        testing = getattr(runner, 'testing', False)
        if not getattr(runner, '_resume', False) and (not testing or getattr(runner, 'starts_from_stage', False)):
            for module in model.modules():
                if hasattr(module, 'check_checkpoint'):
                    module.check_checkpoint(stored, source)
        missing = [name for name in own if name not in state]
        if len(missing) == len(own) and own:
            raise InputError(
                f"'{source}' holds none of this model's weights (its first is '{next(iter(state), 'nothing')}'): it is "
                'a checkpoint of another method or project.'
            )
        if missing and testing:
            raise InputError(
                f"'{source}' lacks {len(missing)} weights of this config's model, the first is '{missing[0]}': test it "
                'with the config that it was trained with.'
            )

    def _same_classes(self, runner, checkpoint: dict, source: str) -> None:
        """A head that learned classes knows them by their order."""
        datasets = built_datasets(runner)
        split = 'test' if getattr(runner, 'testing', False) or 'train' not in datasets else 'train'
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
        old, new = resumable(Config.fromstring(text, '.py'), runner.cfg)
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


def _without_places(recipe):
    """A recipe in which files count by their names: data and work directories may have been moved since."""
    if isinstance(recipe, dict):
        return {k: _without_places(v) for k, v in recipe.items() if k != 'data_root'}
    if isinstance(recipe, list):
        return [_without_places(v) for v in recipe]
    return osp.basename(recipe) if isinstance(recipe, str) and osp.dirname(recipe) else recipe
