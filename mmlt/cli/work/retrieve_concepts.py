"""Pictures nearest to texts."""

import os.path as osp
from argparse import Namespace
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.config import Config
from mmengine.model import BaseModel, BaseModule
from mmengine.registry import DATASETS, init_default_scope
from mmpretrain.registry import MODELS
from torch import Tensor

from mmlt.checkpoints.weights import fit_state, load_state, read_state
from mmlt.choices import PRETRAINED
from mmlt.datasets.transforms import takes_and_gives_bgr
from mmlt.engine import compute_features
from mmlt.engine.configs import read_config
from mmlt.engine.stages import resolve_placeholders, starting_checkpoint
from mmlt.engine.workers import num_workers
from mmlt.errors import InputError
from mmlt.visualization import plot_retrieval, png_path


def retrieval_config(path: str, options: dict | None) -> Config:
    cfg = read_config(path, deepcopy(options))
    if not cfg.get('work_dir'):
        cfg.work_dir = osp.join('work_dirs', osp.splitext(osp.basename(path))[0])
    return cfg


def text_tower(model: BaseModel) -> BaseModule | None:
    """The text tower of a pretrainer or of a classifier's head."""
    return getattr(getattr(model, 'head', None), 'text', None)


def build_towers(cfg: Config, checkpoint: str) -> BaseModel:
    """Build a model with both towers and give it its weights."""
    if checkpoint == PRETRAINED:
        starting_checkpoint(cfg)  # an earlier stage that makes the weights must be finished
    resolve_placeholders(cfg)
    init_default_scope(cfg.get('default_scope', 'mmpretrain'))
    model = MODELS.build(cfg.model)
    if text_tower(model) is None:
        raise InputError(
            f"The model of '{cfg.filename}' has no text tower: give the config of a model with both towers, for "
            'example of the CVLP stage, of BALLAD, or of a pretraining.'
        )
    if checkpoint != PRETRAINED:
        load_towers(model, checkpoint)
    elif cfg.model.backbone.get('pretrained') is None and ':' not in cfg.model.backbone.get('model', ''):
        raise InputError(f"'{cfg.filename}' names no pretrained weights: give a checkpoint.")
    else:
        model.backbone.init_weights()
        text_tower(model).init_weights()
    return model.eval()


def load_towers(model: BaseModel, path: str) -> None:
    """Load a checkpoint that must hold all weights of the model."""
    _, state = read_state(path)
    if any(name.startswith('head.text.') for name in fit_state(model, state).missing):
        raise InputError(
            f"'{path}' holds no text tower: give a checkpoint of a model with both towers, for example of the CVLP "
            'stage, of BALLAD, or of a pretraining.'
        )
    load_state(model, state, path, 'use')


def split_dataset(cfg: Config, split: str):
    """The images of a split, as they are tested."""
    loader = cfg.get(f'{split}_dataloader')
    if loader is None:
        raise InputError(f"'{cfg.filename}' has no {split}_dataloader: choose another --split.")
    dataset = deepcopy(loader.dataset)
    tested = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or loader).dataset
    if dataset.get('pipeline') and tested.get('pipeline'):
        dataset.pipeline = deepcopy(tested.pipeline)  # training pictures without their random changes
    return DATASETS.build(dataset), loader


@torch.no_grad()
def encode_texts(model: BaseModel, texts: list[str]) -> Tensor:
    """Normalised text features, (T, D), on the CPU."""
    tower = text_tower(model)
    features = tower(tower.tokenize(texts).to(next(tower.parameters()).device))
    if (adapter := model.head.text_adapter) is not None:
        features = adapter(features)
    return F.normalize(features.float(), dim=-1).cpu()


def nearest(texts: Tensor, images: Tensor, number: int) -> tuple[Tensor, Tensor]:
    """The images with the largest cosine to every text.

    Args:
        texts (Tensor): Normalised text features, (T, D).
        images (Tensor): Image features, (N, D).
        number (int): How many, at most N.

    Returns:
        tuple[Tensor, Tensor]: Cosines and indices, (T, number), the largest first.
    """
    return (texts @ F.normalize(images, dim=-1).t()).topk(min(number, len(images)))


def as_seen(dataset, index: int, to_rgb: bool) -> np.ndarray:
    """A picture as the image tower gets it before normalisation, (H, W, 3) in RGB."""
    picture = dataset[index]['inputs']
    if takes_and_gives_bgr(dataset.pipeline.transforms, to_rgb)[1]:
        picture = picture.flip(0)
    return picture.permute(1, 2, 0).numpy()


def retrieve(cfg: Config, checkpoint: str, args) -> list[list[tuple[np.ndarray, float]]]:
    """Pictures and similarities of every text."""
    model = build_towers(cfg, checkpoint).to('cuda' if torch.cuda.is_available() else 'cpu')
    dataset, loader = split_dataset(cfg, args.split)
    images = compute_features(
        model,
        dataset,
        loader.get('batch_size', 64),
        num_workers(loader.get('num_workers', 0)),
        f'Images of {args.split}',
    )
    similarities, indices = nearest(encode_texts(model, args.words), images, args.k)
    to_rgb = model.data_preprocessor.to_rgb
    return [
        [(as_seen(dataset, i, to_rgb), s) for i, s in zip(row.tolist(), values.tolist())]
        for row, values in zip(indices, similarities)
    ]


def draw_concepts(args: Namespace) -> None:
    """Find the pictures and draw them."""
    png_path(args.out)  # before the work, not after it
    asked = [(args.config, args.checkpoint)]
    if args.against:
        asked.append((args.against_config or args.config, args.against))
    configs = [retrieval_config(config, args.cfg_options) for config, _ in asked]
    blocks = {}
    for (config, checkpoint), cfg in zip(asked, configs):
        name = osp.splitext(osp.basename(config))[0]
        heading = f'{name}, {checkpoint if checkpoint == PRETRAINED else osp.basename(checkpoint)}'
        blocks[heading if heading not in blocks else checkpoint] = retrieve(cfg, checkpoint, args)
    plot_retrieval(args.words, blocks, args.out)
    print(f'Picture: {args.out}')
