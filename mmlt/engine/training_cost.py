"""What a training costs, before it is begun: steps, and GPU hours at a step's time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmpretrain.registry import DATASETS
from mmpretrain.structures import DataSample
from rich.console import Console
from rich.table import Table

from mmlt.datasets.texts.class_names import config_classes
from mmlt.engine.build_errors import explained
from mmlt.engine.configs import build_model
from mmlt.engine.requirements import dicts
from mmlt.engine.stages import Stage
from mmlt.errors import InputError
from mmlt.models.anchors import Anchors
from mmlt.models.heads.anchor_head import AnchorHead
from mmlt.preparation.checks import Download
from mmlt.utils.class_info import ClassInfo

CPU_BATCH = 16  # images of a measured step where there is no GPU


@dataclass
class Cost:
    """What one stage costs.

    Args:
        name (str): The stage.
        batch (int): Images a GPU.
        gpus (int): GPUs.
        recipe (int, optional): The whole batch that its learning rate is for,
            None where it is scaled to the actual one, or not said.
        images (int, optional): Draws an epoch, None where not known.
        steps (int, optional): Steps an epoch.
        epochs (int): Epochs.
        passes (int): Epochs in which all of the model is run: fewer than
            ``epochs`` where features are cached.
        accumulate (int): Steps whose gradients are added up. Defaults to 1.
        seconds (float, optional): A step's time. Defaults to None.
    """

    name: str
    batch: int
    gpus: int
    recipe: int | None
    images: int | None
    steps: int | None
    epochs: int
    passes: int
    accumulate: int = 1
    seconds: float | None = None

    @property
    def hours(self) -> float | None:
        """GPU hours of all steps; without validation and test."""
        if self.seconds is None or self.steps is None:
            return None
        return self.gpus * self.passes * self.steps * self.seconds / 3600


def stage_costs(stages: Sequence[Stage], download: Download | None, gpus: int) -> list[Cost]:
    """Count the steps of all stages that train.

    Args:
        stages (Sequence[Stage]): Of :func:`mmlt.engine.stages.plan`.
        download (Download, optional): The last stage's data set, which need
            not be there.
        gpus (int): GPUs.

    Returns:
        list[Cost]: Without times.
    """
    last, costs = stages[-1].cfg, []
    for stage in stages:
        cfg = stage.cfg
        if not cfg.get('train_cfg'):
            continue
        dataset = cfg.train_dataloader.dataset
        same = dataset.type == last.test_dataloader.dataset.type
        images = _draws(cfg, download if same else None)
        batch, drop = cfg.train_dataloader.batch_size, cfg.train_dataloader.get('drop_last')
        whole = batch * gpus
        # Batches fit a process's share, so there is a step at least.
        steps = None if images is None else max(1, images // whole) if drop else -(-images // whole)
        views = ((cfg.get('default_hooks') or {}).get('feature_cache') or {}).get('views', 0)
        epochs = cfg.train_cfg.max_epochs
        scale = cfg.get('auto_scale_lr') or {}
        recipe = None if scale.get('enable') else scale.get('base_batch_size')
        views = epochs if views == 'epochs' else views  # as many passes as without cache
        passes, accumulate = min(views, epochs) or epochs, cfg.optim_wrapper.get('accumulative_counts', 1)
        costs.append(Cost(stage.name, batch, gpus, recipe, images, steps, epochs, passes, accumulate))
    return costs


def _draws(cfg: Config, download: Download | None) -> int | None:
    """Images drawn in an epoch."""
    sampler = cfg.train_dataloader.get('sampler') or {}
    if sampler.get('num_samples') not in (None, 'images'):
        return sampler['num_samples']
    if download is not None:
        whole_stream = sampler.get('type') == 'mmlt.ClassAwareSampler' and sampler.get('num_samples') != 'images'
        if whole_stream and download.largest:
            return download.largest * download.num_classes
        return download.images['train']
    try:
        with explained(cfg):
            return len(DATASETS.build(cfg.train_dataloader.dataset))
    except (InputError, FileNotFoundError):
        return None


def give_times(costs: Sequence[Cost], seconds: Sequence[float]) -> None:
    """Note the steps' times.

    Args:
        costs (Sequence[Cost]): Of :func:`stage_costs`.
        seconds (Sequence[float]): One time for all stages, or one for each.

    Raises:
        InputError: Another number of times; a time that is none.
    """
    if len(seconds) not in (1, len(costs)) or min(seconds) <= 0:
        names = ', '.join(cost.name for cost in costs) or 'none'
        raise InputError(
            f'--step-time is {" ".join(map(str, seconds))}: give one number of seconds, or one for each stage that '
            f'trains ({names}).'
        )
    for cost, time_of_step in zip(costs, [*seconds] * (len(costs) if len(seconds) == 1 else 1)):
        cost.seconds = time_of_step


def print_costs(costs: Sequence[Cost], device: str = 'GPU') -> None:
    """Print the table of all stages, and what is to be known with it.

    Args:
        costs (Sequence[Cost]): Of :func:`stage_costs`.
        device (str): Whose hours these are. Defaults to 'GPU'.
    """
    table = Table(title='Training', title_justify='left')
    for name in ('stage', 'batch x GPUs', 'steps x epochs', 'seconds a step', f'{device} hours'):
        table.add_column(name, justify='left' if name == 'stage' else 'right')
    for cost in costs:
        steps = 'not known' if cost.steps is None else f'{cost.steps:,}'
        table.add_row(
            cost.name,
            f'{cost.batch} x {cost.gpus} = {cost.batch * cost.gpus:,}',
            f'{steps} x {cost.epochs}',
            '-' if cost.seconds is None else _rounded(cost.seconds),
            '-' if cost.hours is None else _rounded(cost.hours),
        )
    console = Console()
    if not console.is_terminal:
        console.width = 120
    console.print(table)
    for cost in costs:
        if cost.passes < cost.epochs:
            print(f'{cost.name}: features are cached, the image tower runs in {cost.passes} of {cost.epochs} epochs.')
    for note in batch_notes(costs):
        print(note)
    if known := [cost.hours for cost in costs if cost.hours is not None]:
        print(f'{_rounded(sum(known))} {device} hours in all, without validation and tests.')


def _rounded(value: float) -> str:
    return f'{value:,.0f}' if value >= 100 else f'{value:.3g}'


def batch_notes(costs: Sequence[Cost]) -> list[str]:
    """A sentence on every stage whose batch is another than its learning rate is for."""
    return [
        f'{cost.name}: the learning rate is for a batch of {cost.recipe:,}, not {batch:,}: take --gpus '
        f'{max(1, round(cost.recipe / cost.batch / cost.accumulate))}, or --auto-scale-lr.'
        for cost in costs
        if cost.recipe and (batch := cost.batch * cost.gpus * cost.accumulate) != cost.recipe
    ]


def measure_step(stage: Stage) -> tuple[float, str]:
    """Time a training step of the whole model, with random weights on random pictures.

    Args:
        stage (Stage): One that trains.

    Returns:
        tuple: Seconds, and a sentence on what they are of. Without a GPU few
        images are taken, and the time is scaled to the batch.
    """
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    cfg = stage.cfg.copy()
    full = cfg.train_dataloader.batch_size
    number = full if device.type == 'cuda' else min(full, CPU_BATCH)
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        MMLogger.get_current_instance().setLevel('WARNING')
        model, num_classes = _random_model(cfg)
        model = model.to(device).train()
        wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
        size = picture_size(cfg)
        samples = [DataSample(caption='a photo of a thing').set_gt_label(i % num_classes) for i in range(number)]
        data = dict(inputs=torch.randint(0, 256, (number, 3, *size), dtype=torch.uint8), data_samples=samples)
        for _ in range(2):  # the first one allocates
            _synchronise(device)
            start = time.perf_counter()
            model.train_step(data, wrapper)
            _synchronise(device)
            seconds = time.perf_counter() - start
    if device.type == 'cuda':
        return seconds, f'{stage.name}: measured on one {torch.cuda.get_device_name()}, {full} images.'
    scaled = f', from {number} scaled to {full} images' if number < full else f', {full} images'
    note = f"{stage.name}: this is a CPU's time ({torch.get_num_threads()} threads){scaled}; a GPU takes far less."
    return seconds * full / number, note


def picture_size(cfg: Config) -> tuple[int, int]:
    """Height and width of what a config's test transforms give."""
    loader = cfg.get('val_dataloader') or cfg.get('test_dataloader')
    for transform in reversed(loader.dataset.pipeline if loader else []):
        for key in ('crop_size', 'size', 'scale'):
            if isinstance(size := transform.get(key), int):
                return size, size
            if size:
                return tuple(size)
    return 32, 32  # arrays of the tiny data sets


def _random_model(cfg: Config):
    """A config's model with random weights, and how many classes it is told."""
    for part in dicts(cfg.model):
        part.pop('init_cfg', None)
        if 'pretrained' in part:
            part['pretrained'] = None
        if 'anchors' in part:
            part['anchors'] = None
    head = (cfg.model.get('classifier') or cfg.model).get('head') or {}
    # A pretraining encodes the sentences of all classes once; its step has one an image.
    num_classes = head.get('num_classes') or _num_classes(cfg)
    model = build_model(cfg.model)
    for module in model.modules():
        if hasattr(module, 'set_class_info'):
            names = [f'thing {i}' for i in range(num_classes)]
            module.set_class_info(ClassInfo(names, [100] * num_classes, num_images=1000))
    if hasattr(model, 'set_progress'):
        model.set_progress(1, 2)
    for module in model.modules():
        if isinstance(module, AnchorHead):
            module.take(Anchors.stand_in(module.num_classes, 64, module.in_channels))
    return model, num_classes


def _num_classes(cfg: Config) -> int:
    if cfg.model.get('type') == 'mmlt.CVLP':
        return CPU_BATCH
    return len(config_classes(cfg) or ()) or 1000


def _synchronise(device: torch.device) -> None:
    if device.type == 'cuda':
        torch.cuda.synchronize()
