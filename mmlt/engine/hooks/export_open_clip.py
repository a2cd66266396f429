"""From a trained mm model back to open_clip."""

from __future__ import annotations

import copy
import os.path as osp

import numpy as np
import open_clip
from mmengine.dist import master_only
from mmengine.hooks import Hook
from torch import Tensor, nn

from mmlt.checkpoints.open_clip_files import export_open_clip, to_open_clip
from mmlt.errors import InputError
from mmlt.models import OpenCLIPText, OpenCLIPVision
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


def tower_weights(model: nn.Module) -> dict[str, Tensor]:
    """Weights of both towers, wherever the model has them, under the names of an ``ImageClassifier``.

    Args:
        model (nn.Module): Holds one :class:`OpenCLIPVision` and one
            :class:`OpenCLIPText`.

    Returns:
        dict[str, Tensor]: For :func:`to_open_clip`.

    Raises:
        InputError: A tower is missing.
    """
    vision = next((m for m in model.modules() if isinstance(m, OpenCLIPVision)), None)
    text = next((m for m in model.modules() if isinstance(m, OpenCLIPText)), None)
    if vision is None or text is None:
        raise InputError('To export an open_clip model both towers are needed: OpenCLIPVision and OpenCLIPText.')
    towers = {'backbone': vision.state_dict(), 'head.text.clip': text.clip.state_dict()}
    return {f'{tower}.{name}': value for tower, state in towers.items() for name, value in state.items()}


def open_clip_config(model: nn.Module) -> dict:
    """What open_clip needs beside the weights, in the form of its ``open_clip_config.json``.

    Args:
        model (nn.Module): Holds an :class:`OpenCLIPVision`, and a data
            preprocessor with mean and deviation.

    Returns:
        dict: ``model_cfg`` (architecture, input size, activation) and
        ``preprocess_cfg`` (mean and deviation of R, G, B in 0..1).
    """
    vision = next(m for m in model.modules() if isinstance(m, OpenCLIPVision))
    config = copy.deepcopy(open_clip.get_model_config(vision.model_name))
    sizes = np.ravel(vision.image_size).tolist()  # one number or two, by the kind of tower
    config['vision_cfg']['image_size'] = sizes[0] if len(set(sizes)) == 1 else sizes
    if vision.activation.quick_gelu:
        config['quick_gelu'] = True
    scaled = {k: np.ravel(getattr(model.data_preprocessor, k).cpu()) / 255 for k in ('mean', 'std')}
    return dict(model_cfg=config, preprocess_cfg={k: [round(float(x), 8) for x in v] for k, v in scaled.items()})


@HOOKS.register_module()
class ExportOpenCLIPHook(Hook):
    """After training, write both towers in open_clip's own form.

    The path of the weight file can be given as ``pretrained`` to
    :class:`OpenCLIPVision`, :class:`OpenCLIPText` and to open_clip itself.
    Beside it lies ``open_clip_config.json`` with the architecture, mean and
    deviation, so that the work directory is a model to them, too:
    ``model='local-dir:<work_dir>'``.

    Args:
        filename (str): Name in the work directory.
            Defaults to 'open_clip.safetensors'.

    Raises:
        InputError: Before the training, see :func:`tower_weights` and
            :func:`to_open_clip`.
    """

    def __init__(self, filename: str = 'open_clip.safetensors'):
        self.filename = filename

    def before_train(self, runner) -> None:
        """What cannot be exported is not trained first."""
        to_open_clip(tower_weights(unwrap(runner.model)), 'the model')

    @master_only
    def after_train(self, runner) -> None:
        """Write the file."""
        model = unwrap(runner.model)
        path = osp.join(runner.work_dir, self.filename)
        export_open_clip(tower_weights(model), path, 'the model', config=open_clip_config(model))
        runner.logger.info(f'The open_clip weights are in {path}')
