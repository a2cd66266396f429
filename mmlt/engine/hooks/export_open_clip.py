"""From a trained mm model back to an open_clip weight file."""

from __future__ import annotations

import os.path as osp

from mmengine.dist import master_only
from mmengine.hooks import Hook
from safetensors.torch import save_file
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models import OpenCLIPText, OpenCLIPVision
from mmlt.registry import HOOKS
from mmlt.utils import unwrap


def open_clip_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Weights of both towers under open_clip's names.

    Args:
        model (nn.Module): Holds one :class:`OpenCLIPVision` and one
            :class:`OpenCLIPText`.

    Returns:
        dict[str, Tensor]: As ``open_clip.create_model(...).state_dict()``.

    Raises:
        InputError: A tower is missing, or the image tower has adapters.
    """
    vision = next((m for m in model.modules() if isinstance(m, OpenCLIPVision)), None)
    text = next((m for m in model.modules() if isinstance(m, OpenCLIPText)), None)
    if vision is None or text is None:
        raise InputError('To export an open_clip model both towers are needed: OpenCLIPVision and OpenCLIPText.')
    if vision.adapters is not None:
        raise InputError(
            'The image tower has adapters, which are no part of an open_clip model: without them the file would hold '
            "the tower as it was before the training. Use the training's checkpoint, and remove ExportOpenCLIPHook."
        )
    state = {f'visual.{k}': v for k, v in vision.visual.state_dict().items()}
    state.update(text.clip.state_dict())
    return {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}


@HOOKS.register_module()
class ExportOpenCLIPHook(Hook):
    """After training, write both towers as an open_clip weight file.

    Its path can be given as ``pretrained`` to :class:`OpenCLIPVision`,
    :class:`OpenCLIPText` and to open_clip itself.

    Args:
        filename (str): Name in the work directory.
            Defaults to 'open_clip.safetensors'.

    Raises:
        InputError: Before the training, where :func:`open_clip_state_dict`
            cannot give the weights.
    """

    def __init__(self, filename: str = 'open_clip.safetensors'):
        self.filename = filename

    def before_train(self, runner) -> None:
        """What cannot be exported is not trained first."""
        open_clip_state_dict(unwrap(runner.model))

    @master_only
    def after_train(self, runner) -> None:
        """Write the file."""
        model = unwrap(runner.model)
        path = osp.join(runner.work_dir, self.filename)
        save_file(open_clip_state_dict(model), path)
        runner.logger.info(f'The open_clip weights are in {path}')
