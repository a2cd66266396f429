"""MMEngine's Runner with what a staged, CPU-capable project needs."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
import itertools
import logging
import os.path as osp

import torch
from mmengine.dist import barrier, broadcast_object_list, is_distributed, is_main_process
from mmengine.hooks import CheckpointHook, EMAHook
from mmengine.logging import MessageHub
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.optim import OptimWrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner as MMEngineRunner
from mmengine.runner import get_state_dict, save_checkpoint, weights_to_cpu
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader

from mmlt.checkpoints import latest_checkpoint, newest_whole
from mmlt.datasets.unscored import mark_unscored
from mmlt.engine.batches import check_evaluated, fit_batches
from mmlt.engine.console import ConsoleFilter
from mmlt.engine.draws import number_draws, own_generator
from mmlt.engine.environment import environment
from mmlt.engine.lock import lock_folder
from mmlt.engine.parallel import FSDP, parallel_settings
from mmlt.engine.precision import allow_tf32, apply_precision, fused_optimizer
from mmlt.engine.stages import (
    RunRecord,
    decisive,
    keep_part,
    resolve_placeholders,
    stage_ids,
    starting_checkpoint,
)
from mmlt.errors import InputError
from mmlt.evaluation.shot_metric import tell_apart
from mmlt.models.losses.common import leave_out_unscored
from mmlt.registry import RUNNERS
from mmlt.utils import quick_collections, unwrap
from mmlt.utils.labels import build_dataset

# Hooks that MMEngine registers, unless a config says None.
_OF_MMENGINE = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint')


@RUNNERS.register_module()
class Runner(MMEngineRunner):
    """MMEngine's Runner; a config names it by ``runner_type='mmlt.Runner'``.

    Beyond MMEngine's:

    - earlier ``stages`` of a config are found (see :mod:`mmlt.engine.stages`),
      also with MMPretrain's own ``train.py``, and a missing one is named; of
      its checkpoint all weights are loaded, or those below a prefix;
    - ``run.json`` in the work directory tells whether a training is finished,
      and its result: the best checkpoint by validation where ``save_best`` keeps
      one (by its first figure, if it names several), else the last; later stages start from it, and the test after a
      training is of it;
    - batches of a training fit what a process gets (:mod:`mmlt.engine.batches`);
    - a learning rate for another batch size than the actual one is told;
    - checkpoints of another model are refused (:class:`CheckpointGuardHook`);
    - ``--launcher pytorch`` and ``--amp`` work without a GPU (gloo, bfloat16);
    - ``parallel='fsdp'`` trains in parts (see :mod:`mmlt.engine.parallel`);
    - a training that waits for pictures says so (:class:`DataTimeHook`);
    - ``precision='auto'`` takes what the machine is fast in, see
      :mod:`mmlt.engine.precision`; on GPUs optimizers are the fused ones;
    - a test without checkpoint evaluates the pretrained model (zero-shot);
    - where nothing is trained but a head is fitted on an earlier stage, the
      test leaves the whole model as ``model.pth``;
    - predictions are drawn in RGB, and no drawing overwrites another (:class:`PredictionPicturesHook`);
    - the console shows progress, the log file everything.
    """

    testing = False  # whether test() is running
    _load_from: str | None  # MMEngine sets it, and the next
    _resume: bool
    precision: str | None = None  # a line on what the training computes in
    asked: dict | None = None  # the decisive part of the config, before stages were filled in
    starts_from_stage = False  # whether the checkpoint to load is that of an earlier stage
    sharding: FSDP | None = None  # None: DDP, or one process
    load_part: str | None = None  # prefix of the weights that the earlier stage's checkpoint is to give

    @classmethod
    def from_cfg(cls, cfg):
        """Build from a config; see MMEngine."""
        asked = decisive(cfg)
        cfg = copy.deepcopy(cfg)
        for name, hook in list((cfg.get('default_hooks') or {}).items()):
            if hook is None and name not in _OF_MMENGINE:  # MMEngine knows how to leave out its own only
                cfg.default_hooks.pop(name)
        given = cfg.get('load_from')
        part = cls._find_earlier_stages(cfg)
        precision = apply_precision(cfg)
        runner = super().from_cfg(cfg)
        runner.precision = precision
        runner.asked, runner.load_part = asked, part
        runner.starts_from_stage = cfg.get('load_from') != given
        return runner

    @property
    def _experiment_name(self) -> str:
        """MMEngine's name of the run, under which its logger, figures and pictures are found."""
        return self.__dict__['_experiment_name']

    @_experiment_name.setter
    def _experiment_name(self, name: str) -> None:
        own = name
        for number in itertools.count(2):
            if not MessageHub.check_instance_created(own):
                break
            own = f'{name}_{number}'  # MMEngine's names end with the second, and another run began in it
        self.__dict__['_experiment_name'] = own

    @staticmethod
    def _find_earlier_stages(cfg) -> str | None:
        """Put what the earlier stages give into the config; return the prefix of the weights to load, None for all."""
        part = None
        if cfg.get('stages'):
            resumes = cfg.get('resume') and (cfg.get('load_from') or latest_checkpoint(cfg.work_dir))
            # Where nothing is trained, an earlier stage's checkpoint is tested, if the config asks for one.
            needs_start = cfg.get('train_cfg') or any(stage.get('load_from') for stage in cfg.stages.values())
            if needs_start and not cfg.get('load_from') and not resumes:
                start, part = starting_checkpoint(cfg)
                if start is not None:
                    cfg.load_from, cfg.resume = start, False
            resolve_placeholders(cfg)
        return part

    def load_or_resume(self) -> None:
        """See MMEngine; a training goes on from its last checkpoint that is whole."""
        if self._has_loaded or not self._resume or self._load_from is not None:
            return super().load_or_resume()
        found = [newest_whole(self.work_dir) if is_main_process() else None]
        broadcast_object_list(found)
        whole, damaged = found[0]
        names = ' and '.join(f"'{path}'" for path in damaged)
        if whole is None and damaged:
            raise InputError(
                f'Of the training in {self.work_dir} no checkpoint is whole ({names} cut off or damaged): train it '
                'anew with --restart, or in another --work-dir.'
            )
        if damaged:
            self.logger.warning(f"{names} cut off or damaged: the training goes on from '{whole}', which is whole.")
        self._load_from = whole
        try:
            super().load_or_resume()
        finally:
            self._load_from = None

    def load_checkpoint(self, *args, **kwargs):
        """See MMEngine; what it prints of missing keys goes to the log file."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            checkpoint = super().load_checkpoint(*args, **kwargs)
        if text := printed.getvalue().strip():
            self.logger.info(text)
        return checkpoint

    def call_hook(self, fn_name: str, **kwargs) -> None:
        """See MMEngine; hooks see of an earlier stage's checkpoint only the part that is loaded."""
        if fn_name == 'after_load_checkpoint' and self.load_part is not None:
            keep_part(kwargs['checkpoint'], self.load_part, self._load_from)
            self.load_part = None  # later checkpoints are this run's own
        if self.sharding is not None and fn_name == 'before_run' and isinstance(self.optim_wrapper, OptimWrapper):
            self.sharding.check(self)
        if self.sharding is not None and fn_name == 'after_train':
            self.sharding.leave(self)
        super().call_hook(fn_name, **kwargs)
        if self.sharding is not None and fn_name == 'before_train':
            self.sharding.enter(self)

    def save_checkpoint(self, *args, **kwargs) -> None:
        """See MMEngine; all processes call it, and what is written is whole."""
        if self.sharding is None:
            return super().save_checkpoint(*args, **kwargs)
        with self.sharding.whole(self, kwargs.get('save_optimizer', True)):
            super().save_checkpoint(*args, **kwargs)

    def register_default_hooks(self, hooks=None) -> None:
        """See MMEngine; checkpoints and scores are always guarded, and predictions are drawn by our hook."""
        hooks = dict(hooks or {})
        drawing = hooks.get('visualization')
        if isinstance(drawing, dict) and drawing.get('type') == 'VisualizationHook':
            hooks['visualization'] = {**drawing, 'type': 'mmlt.PredictionPicturesHook'}
        hooks.setdefault('runtime_info', dict(type='mmlt.RuntimeInfoHook'))
        hooks.setdefault('data_time', dict(type='mmlt.DataTimeHook'))
        hooks.setdefault('epoch', dict(type='mmlt.EpochHook'))
        hooks.setdefault('random_numbers', dict(type='mmlt.RandomNumbersHook'))
        hooks.setdefault('checkpoint_guard', dict(type='mmlt.CheckpointGuardHook'))
        hooks.setdefault('finite_scores', dict(type='mmlt.FiniteScoresHook'))
        super().register_default_hooks(hooks)

    def register_hook(self, hook, priority=None) -> None:
        """See MMEngine; its CheckpointHook is the one that knows the figures of the metrics."""
        if isinstance(hook, dict):
            kind = hook.get('type')
            if (HOOKS.get(kind) if isinstance(kind, str) else kind) is CheckpointHook:
                hook = {**hook, 'type': 'mmlt.CheckpointHook'}
        super().register_hook(hook, priority)

    def build_evaluator(self, evaluator):
        """See MMEngine; the figures of two shot metrics have different names."""
        evaluator = super().build_evaluator(evaluator)
        tell_apart(evaluator.metrics)
        return evaluator

    def build_logger(self, *args, **kwargs):
        """See MMEngine; the console leaves out what only the log file needs."""
        logger = super().build_logger(*args, **kwargs)
        for handler in logger.handlers:
            if type(handler) is logging.StreamHandler:
                handler.addFilter(ConsoleFilter())
        return logger

    def _log_env(self, env_cfg: dict) -> None:
        """As MMEngine does, of the main process and without asking compilers for their versions."""
        if not is_main_process():
            return
        setting = {**env_cfg, **self._randomness_cfg, 'seed': self._seed}
        setting |= {'Distributed launcher': self._launcher, 'Processes': self._world_size}
        for title, values in (('System environment', environment()), ('Runtime environment', setting)):
            self.logger.info(f'{title}:' + ''.join(f'\n    {k}: {v}' for k, v in values.items()))
        if self.cfg._cfg_dict:
            self.logger.info(f'Config:\n{self.cfg.pretty_text}')

    def build_model(self, model):
        """See MMEngine; labels that a dataset marks as not to be scored cost nothing in any multi-label loss."""
        model = super().build_model(model)
        leave_out_unscored(model)
        return model

    @staticmethod
    def build_dataloader(dataloader, *args, **kwargs):
        """See MMEngine; lists of different counts can be joined, and labels that are not to be scored are marked."""
        if isinstance(dataloader, dict) and isinstance(dataloader.get('dataset'), dict):
            with quick_collections():
                dataset = build_dataset(dataloader['dataset'])
                if hasattr(dataset, 'full_init'):
                    dataset.full_init()
            dataloader = {**dataloader, 'dataset': dataset}
        loader = MMEngineRunner.build_dataloader(dataloader, *args, **kwargs)
        mark_unscored(loader.dataset)
        own_generator(loader, 0)
        return loader

    def setup_env(self, env_cfg: dict) -> None:
        """See MMEngine; processes on CPUs talk by gloo."""
        if self._launcher == 'pytorch' and not is_distributed() and not torch.cuda.is_available():
            torch.distributed.init_process_group('gloo')
        super().setup_env(env_cfg)

    def build_optim_wrapper(self, optim_wrapper):
        """See MMEngine; optimizers on GPUs are fused."""
        if isinstance(optim_wrapper, dict) and isinstance(optim_wrapper.get('optimizer'), dict):
            optim_wrapper = {**optim_wrapper, 'optimizer': fused_optimizer(optim_wrapper['optimizer'])}
        return super().build_optim_wrapper(optim_wrapper)

    def wrap_model(self, model_wrapper_cfg, model):
        """See MMEngine; on CPUs DDP gets no device ids, and FSDP takes the model apart later."""
        settings = parallel_settings(self.cfg)
        if settings is not None and self.distributed and self.world_size > 1 and not is_model_wrapper(model):
            self.sharding = FSDP(**settings)
            return self.sharding.place(model, self.cfg.get('sync_bn'))
        if self.distributed and not torch.cuda.is_available() and not is_model_wrapper(model):
            cfg = dict(model_wrapper_cfg or {})
            cfg.setdefault('type', 'MMDistributedDataParallel')
            cfg.setdefault('find_unused_parameters', self.cfg.get('find_unused_parameters', False))
            buffers = 'forward_sync_buffers'
            if buffers not in inspect.signature(DistributedDataParallel.__init__).parameters:
                buffers = 'broadcast_buffers'
            cfg.setdefault(buffers, False)
            cfg.setdefault('device_ids', None)
            model_wrapper_cfg = cfg
        return super().wrap_model(model_wrapper_cfg, model)

    def build_train_loop(self, loop):
        """See MMEngine; the batches fit the data."""
        loader = self._train_dataloader
        if isinstance(loop, dict) and (isinstance(loader, DataLoader) or 'dataset' in (loader or {})):
            self._train_dataloader = fit_batches(self._build_loader, loader)
            number_draws(self._train_dataloader, self.seed)
            self._tell_batch_size(self._train_dataloader.batch_size)
        return super().build_train_loop(loop)

    def _build_loader(self, config) -> DataLoader:
        """As MMEngine's loops do."""
        different = self._randomness_cfg.get('diff_rank_seed', False)
        return self.build_dataloader(config, seed=self.seed, diff_rank_seed=different)

    def build_val_loop(self, loop):
        """See MMEngine; no picture is left out."""
        loop = super().build_val_loop(loop)
        check_evaluated(loop.dataloader, 'val_dataloader')
        return loop

    def build_test_loop(self, loop):
        """See MMEngine; no picture is left out."""
        loop = super().build_test_loop(loop)
        check_evaluated(loop.dataloader, 'test_dataloader')
        return loop

    def train(self):
        """Train, and record the beginning and the end in ``run.json``."""
        record = RunRecord(self.work_dir)
        barrier()  # nobody still reads the old record
        if is_main_process():
            lock_folder(self.work_dir)
            resumed = self._resume and (self._load_from or latest_checkpoint(self.work_dir)) is not None
            record.begin(self.asked or decisive(self.cfg), stage_ids(self.cfg), resumed)
        if self.precision:
            self.logger.info(self.precision)
            allow_tf32(self.precision)
        model = super().train()
        self._has_loaded = True  # a test that follows is of the trained weights
        barrier()  # the main process has written the last checkpoint
        best = self._best_checkpoint()
        if is_main_process():
            inside = best and osp.dirname(osp.abspath(best)) == osp.abspath(self.work_dir)
            record.finish(osp.basename(best) if inside else best and osp.abspath(best))
        barrier()
        self._test_result(best)
        return model

    def _best_checkpoint(self) -> str | None:
        """Path of the best checkpoint by validation, None where the config or the training kept none."""
        hook = next((h for h in self.hooks if isinstance(h, CheckpointHook) and h.save_best), None)
        if hook is None:
            return None  # a resumed checkpoint may know one of another config
        several = len(hook.key_indicators) > 1
        known = self.message_hub.runtime_info.get(f'best_ckpt_{hook.key_indicators[0]}' if several else 'best_ckpt')
        if known is None:
            return None
        # A resumed training may have begun in another folder, or in this one under another name.
        for path in (osp.join(self.work_dir, osp.basename(known)), known):
            if osp.isfile(path):
                return path
        self.logger.warning(f"The best checkpoint, '{known}', is gone: the last one is the training's result.")
        return None

    def _test_result(self, best: str | None) -> None:
        """Let a test that follows read the training's result from its file, where it is not what is in memory.

        That is the best checkpoint by validation; and averaged weights, since an EMAHook begins anew with a test.
        """
        averaged = any(isinstance(hook, EMAHook) for hook in self.hooks)
        result = best or (latest_checkpoint(self.work_dir) if averaged else None)
        if result is not None:
            self._load_from, self._resume, self._has_loaded = result, False, False
            self.starts_from_stage = False

    def _tell_batch_size(self, size: int | None) -> None:
        """One line where the learning rate is for another batch size than the actual one."""
        scaling = self.auto_scale_lr or {}
        base = scaling.get('base_batch_size')
        if base is None or scaling.get('enable') or size is None:
            return
        steps = (self.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
        actual = size * self.world_size * steps
        if actual != base:
            self.logger.warning(
                f'The learning rate of this config is for a batch of {base}, the batch here is {actual} '
                f'({size} x {self.world_size} processes x {steps} accumulated): scale it with '
                '--auto-scale-lr (auto_scale_lr.enable=True), or make it up with optim_wrapper.accumulative_counts.'
            )

    def test(self) -> dict:
        """Test; without a checkpoint, with the pretrained weights."""
        self.testing = True
        try:
            if self._load_from is None and not self._resume and not self._has_loaded:
                self.logger.info('No checkpoint is given: the model is tested with its pretrained weights.')
                self._init_model_weights()
                self._has_loaded = True
            elif self.starts_from_stage and not self._has_loaded:
                self._init_model_weights()  # what the stage's checkpoint does not hold, such as anchor sentences
            metrics = super().test()
            if self.cfg.get('train_cfg') is None and is_main_process():
                self._save_tested()
            return metrics
        finally:
            self.testing = False

    def _save_tested(self) -> None:
        """What an earlier stage and the test made together, such as class means, is a model to keep."""
        model = unwrap(self.model)
        fitted = self._load_from is None and hasattr(getattr(model, 'head', None), 'fit')
        if isinstance(model, BaseTTAModel) or not (self.starts_from_stage or fitted):
            return
        dataset = self.test_dataloader.dataset
        meta = dict(cfg=self.cfg.pretty_text, dataset_meta=getattr(dataset, 'metainfo', None))
        path = osp.join(self.work_dir, 'model.pth')
        save_checkpoint(dict(meta=meta, state_dict=weights_to_cpu(get_state_dict(model))), path)
        self.logger.info(f'The tested model is in {path}')
