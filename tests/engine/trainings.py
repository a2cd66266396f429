"""Several trainings one after the other in the processes of one launch; what they computed is kept beside their files.

Usage: torchrun ... trainings.py runs.json, a list of dict(config=..., work_dir=..., options=...).
``<work_dir>/steps.pth`` holds the losses of every step and the gradients of the first one, whole.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as functional
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

import mmlt  # noqa: F401
from mmlt.engine import Runner
from mmlt.engine.parallel import FSDP, gathered
from mmlt.errors import InputError
from mmlt.utils import leave_together


@HOOKS.register_module()
class RecordSteps(Hook):
    """Losses, and the gradients that the optimizer gets first, in its order."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.losses, self.gradients = [], None
        self.handle = runner.optim_wrapper.optimizer.register_step_pre_hook(self._keep)

    def _keep(self, optimizer, *_):
        parameters = [p for group in optimizer.param_groups for p in group['params']]
        gradients = gathered([p.grad for p in parameters])
        self.gradients = [None if g is None else g.clone() for g in gradients]
        self.handle.remove()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.losses.append({k: float(v) for k, v in outputs.items()})

    def after_train(self, runner):
        kinds = {type(p).__name__ for p in runner.model.parameters()} | {type(m).__name__ for m in runner.model.modules()}
        if is_main_process():
            kept = dict(losses=self.losses, gradients=self.gradients, kinds=sorted(kinds))
            torch.save(kept, Path(runner.work_dir) / 'steps.pth')


def as_on_a_gpu() -> None:
    """Parameters in half precision, and layer norms of an autocast that takes them."""
    FSDP.half_on = ('cuda', 'cpu')
    plain = functional.layer_norm

    def in_single_precision(x, shape, weight=None, bias=None, eps=1e-5):
        if not torch.is_autocast_enabled('cpu'):
            return plain(x, shape, weight, bias, eps)
        with torch.autocast('cpu', enabled=False):
            return plain(x.float(), shape, *(v if v is None else v.float() for v in (weight, bias)), eps)

    functional.layer_norm = in_single_precision


def train(run: dict) -> None:
    cfg = Config.fromfile(run['config'])
    cfg.merge_from_dict(run.get('options') or {})
    cfg.work_dir, cfg.experiment_name, cfg.launcher = run['work_dir'], run['work_dir'], 'pytorch'
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='RecordSteps')]
    try:
        Runner.from_cfg(cfg).train()
    except InputError as e:
        if is_main_process():
            Path(run['work_dir'], 'refused.txt').write_text(str(e))


if __name__ == '__main__':
    torch.set_num_threads(1)
    if '--as-on-a-gpu' in sys.argv:
        as_on_a_gpu()
    for run in json.loads(Path(sys.argv[1]).read_text()):
        train(run)
    leave_together()
