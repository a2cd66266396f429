"""Models by name, by config and with their weights."""

from __future__ import annotations

import copy
import difflib
import fnmatch
import os
import os.path as osp
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.apis import ModelHub
from modelindex.load_model_index import load as load_model_index

from mmlt.checkpoints.weights import load_weights
from mmlt.datasets.texts.class_names import config_classes
from mmlt.engine.configs import build_model, change_config, read_config
from mmlt.engine.stages import resolve_placeholders
from mmlt.errors import InputError
from mmlt.utils.class_info import ClassInfo
from mmlt.utils.classes import check_same_classes

INDEX = Path(__file__).parents[1] / 'model-index.yml'


def register_models() -> list[str]:
    """Put mmlt's models into MMPretrain's ``ModelHub``; a second call changes nothing.

    From then on ``mmpretrain.get_model`` and its inferencers know them by name.

    Returns:
        list[str]: Their names.

    Raises:
        InputError: The configs are not there (mmlt was installed without its
            repository), or another project has a model of the same name.
    """
    if not INDEX.is_file():
        raise InputError(
            f"The list of models '{INDEX}' does not exist: it lies in mmlt's repository, install mmlt from there with "
            'pip install -e .'
        )
    index = load_model_index(str(INDEX))
    index.build_models_with_collections()
    own = {model.name.lower(): osp.abspath(INDEX.parent / model.config) for model in index.models}
    known = {name: ModelHub._models_dict[name].config for name in own if ModelHub.has(name)}
    for name, config in known.items():
        if config != own[name]:
            raise InputError(f"MMPretrain's hub has another model named '{name}' ({config}): rename one of them.")
    if not known:
        ModelHub.register_model_index(INDEX, config_prefix=INDEX.parent)
    return sorted(own)


def list_models(pattern: str = '*') -> list[str]:
    """Names of mmlt's models.

    Args:
        pattern (str): Beginning of the names, with ``*`` and ``?`` as
            wildcards. Defaults to '*', all.

    Returns:
        list[str]: Sorted names, for :func:`get_model`.

    Raises:
        InputError: See :func:`register_models`.
    """
    return fnmatch.filter(register_models(), f'{pattern.lower()}*')


def get_model(
    model: str | os.PathLike | Config,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    classes: Sequence[str] | None = None,
    cfg_options: dict | None = None,
) -> BaseModel:
    """Build a model with its weights, ready to predict.

    A model is never left with random weights: without a checkpoint it must be
    an image-text classifier whose pretrained weights the config names, and is
    then CLIP's zero-shot classifier.

    Args:
        model (str | os.PathLike | Config): A name of :func:`list_models`, the path of a
            config, or a config.
        checkpoint (str | os.PathLike, optional): A file, or an address. Defaults to None.
        device (str | torch.device, optional): Defaults to None, the CPU.
        classes (Sequence[str], optional): Class names. An image-text
            classifier takes any, other models those that they were trained
            on. Defaults to None, those in the checkpoint or of the config's
            test set.
        cfg_options (dict, optional): Changes to the config, as by
            ``--cfg-options``. Defaults to None.

    Returns:
        BaseModel: In eval mode, also for MMPretrain's inferencers.

    Raises:
        InputError: No such model or file; a checkpoint of another model; no
            checkpoint where one is needed; class names that are missing, or
            whose number is not the model's; a device that is not there.
    """
    device = _usable(device or 'cpu')
    cfg = _config(model)
    change_config(cfg, cfg_options)
    resolve_placeholders(cfg)
    if checkpoint is None:
        _check_zero_shot(cfg)
    MMLogger.get_current_instance().setLevel('WARNING')  # initialisation is told tensor by tensor
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        built = build_model({'data_preprocessor': cfg.get('data_preprocessor'), **cfg.model})
    asked = None if classes is None else tuple(classes)
    if checkpoint is None:
        classes = asked or config_classes(cfg)
        if classes is None:
            raise InputError("The config's test set does not tell its classes here: give classes=[...].")
        _tell(built, classes)
        built.init_weights()
    else:
        if asked is not None:
            _tell(built, asked)
        meta = load_weights(built, checkpoint)
        own = tuple((meta.get('dataset_meta') or {}).get('classes') or ())
        # Other names, such as translations, are the user's; the same ones in another order are a mistake.
        if asked is not None and not getattr(built.head, 'takes_any_classes', False) and sorted(own) == sorted(asked):
            remedy = 'Give the names in the order of the training, or none.'
            check_same_classes({f"'{checkpoint}'": own, 'the names given': asked}, remedy)
        classes = asked or (meta.get('dataset_meta') or {}).get('classes') or config_classes(cfg)
        tokens = getattr(built.head, 'class_tokens', None)
        if classes is not None and tokens is not None and not tokens.numel():
            _tell(built, classes)
    if classes is None:
        raise InputError(f"'{checkpoint}' does not tell its class names: give classes=[...].")
    built._dataset_meta = dict(classes=list(classes))
    built._config, built._metainfo = cfg, None
    return built.to(device).eval()


def _usable(device: str | torch.device) -> torch.device:
    """A device by its name, if tensors can be put there."""
    try:
        return torch.empty(0, device=device).device
    except (AssertionError, RuntimeError) as e:  # torch without CUDA asserts
        gpus = torch.cuda.device_count()
        here = f"'cpu' or 'cuda:0' to 'cuda:{gpus - 1}'" if gpus else "'cpu', torch finds no GPU here"
        raise InputError(f"The device '{device}' cannot be used: give {here}.") from e


def _config(model: str | os.PathLike | Config) -> Config:
    model = model if isinstance(model, Config) else os.fspath(model)
    if isinstance(model, Config):
        cfg = copy.deepcopy(model)
    elif osp.isfile(model) or model.endswith('.py'):
        cfg = read_config(model)
    elif model.lower() not in (names := register_models()):
        near = difflib.get_close_matches(model.lower(), names, 5)
        raise InputError(
            f"There is no model '{model}'." + (f' Near it: {", ".join(near)}.' if near else '') + ' All: list_models().'
        )
    else:
        cfg = ModelHub.get(model).config
    name = osp.splitext(osp.basename(cfg.filename or 'model'))[0]
    cfg.setdefault('work_dir', osp.join('work_dirs', name))
    return cfg


def _check_zero_shot(cfg: Config) -> None:
    """Whether a config without a checkpoint is a pretrained image-text classifier."""
    head, backbone = cfg.model.get('head') or {}, cfg.model.get('backbone') or {}
    texts = (head.get('text') or {}).get('pretrained') or head.get('class_embeddings')
    plain = head.get('type') == 'mmlt.TextClsHead' and not cfg.model.get('neck') and not head.get('text_adapter')
    if not (plain and texts and backbone.get('pretrained')):
        raise InputError(
            f"'{cfg.filename or 'The config'}' needs a checkpoint: it has parts that are trained, and they would be "
            'random. Give the last of its work directory.'
        )


def _tell(model: BaseModel, classes: Sequence[str]) -> None:
    """Tell the head the class names, after a check of their number."""
    number = getattr(model.head, 'num_classes', None)
    if number is not None and number != len(classes):
        raise InputError(f'The model has {number} classes, but {len(classes)} class names are given.')
    if hasattr(model.head, 'set_class_info'):
        model.head.set_class_info(ClassInfo(classes))
