"""Several trainings one after the other in the processes of one launch; what they computed is kept.

Usage: torchrun ... trainings.py runs.json, a list of dict(config=..., work_dir=..., options=...), with
``compiled=True`` for compiled blocks. ``<work_dir>/steps.pth`` holds the losses of every step, the gradients of the
first one, whole, the share of the parameters that the first process had in training, and the types of what was there
afterwards.
``--as-on-a-gpu``: the precision policy that FSDP has on GPUs.
"""

import json
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mmlt.engine import Runner
from mmlt.engine.parallel import FSDP
from mmlt.engine.sharding import blocks, gathered
from mmlt.utils import leave_together, local_part, unwrap


@HOOKS.register_module()
class RecordSteps(Hook):
    """See above."""

    priority = 'LOWEST'

    def before_train(self, runner):
        self.kept = dict(losses=[])
        self.handle = runner.optim_wrapper.optimizer.register_step_pre_hook(self._keep_gradients)

    def _keep_gradients(self, optimizer, *_):
        gradients = gathered([p.grad for group in optimizer.param_groups for p in group['params']])
        self.kept['gradients'] = [None if g is None else g.clone() for g in gradients]
        self.handle.remove()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.kept['losses'].append({k: float(v) for k, v in outputs.items()})
        norms = runner.message_hub.log_scalars.get('train/grad_norm')
        self.kept.setdefault('norms', []).append(None if norms is None else float(norms.current()))
        own = sum(local_part(p).numel() for p in runner.model.parameters())
        self.kept['share'] = own / sum(p.numel() for p in runner.model.parameters())

    def after_train(self, runner):
        parts = [*runner.model.parameters(), *unwrap(runner.model).modules()]
        self.kept['types'] = sorted({type(part).__name__ for part in parts})
        if is_main_process():
            torch.save(self.kept, Path(runner.work_dir) / 'steps.pth')


def as_on_a_gpu() -> None:
    """Parameters of blocks in half precision; layer norms in single precision, as autocast has them on GPUs."""
    FSDP.half_on = ('cuda', 'cpu')
    plain = F.layer_norm

    def layer_norm(x, shape, weight=None, bias=None, eps=1e-5):
        if not torch.is_autocast_enabled('cpu'):
            return plain(x, shape, weight, bias, eps)
        with torch.autocast('cpu', enabled=False):
            return plain(x.float(), shape, *(v if v is None else v.float() for v in (weight, bias)), eps)

    F.layer_norm = layer_norm


def train(run: dict) -> None:
    cfg = Config.fromfile(run['config'])
    cfg.merge_from_dict(run.get('options') or {})
    cfg.work_dir, cfg.experiment_name, cfg.launcher = run['work_dir'], run['work_dir'], 'pytorch'
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='RecordSteps')]
    runner = Runner.from_cfg(cfg)
    if run.get('compiled'):
        for block in blocks(unwrap(runner.model)):
            block.compile(backend='aot_eager', dynamic=False)
    runner.train()


if __name__ == '__main__':
    torch.set_num_threads(1)
    if '--as-on-a-gpu' in sys.argv:
        as_on_a_gpu()
    for run in json.loads(Path(sys.argv[1]).read_text()):
        train(run)
    leave_together()
