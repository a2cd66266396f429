"""A classifier beside which a frozen image-text model looks at the same pictures, for CUE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.models import ImageClassifier
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.backbones import OpenCLIPVision
from mmlt.models.heads import TextClsHead
from mmlt.models.losses.cue import CUELoss
from mmlt.registry import MODELS
from mmlt.utils.class_info import ClassInfo


class ZeroShot(nn.Module):
    """A frozen image-text model that scores pictures by the texts of the classes.

    It has no parameters and no buffers for others: checkpoints, optimizers and
    DDP do not see it, and a resumed training reads its weights anew.

    Args:
        model (str): Name of an open_clip model.
        pretrained (str, optional): See :class:`OpenCLIPVision`.
            Defaults to None, random weights.
        templates (str | Sequence[str]): Prompts, see :func:`get_templates`.
            Defaults to 'clip', as in CUE's published code.
        image_size (int, optional): See :class:`OpenCLIPVision`.
            Defaults to None.
        **kwargs: Further arguments of both towers, for example ``quick_gelu``.
    """

    vision: OpenCLIPVision
    head: TextClsHead

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        templates: str | Sequence[str] = 'clip',
        image_size: int | None = None,
        **kwargs,
    ):
        super().__init__()
        tower = dict(model=model, pretrained=pretrained, frozen=True, **kwargs)
        vision = MMPRETRAIN_MODELS.build(dict(type='mmlt.OpenCLIPVision', image_size=image_size, **tower))
        text = dict(type='mmlt.OpenCLIPText', **tower)
        head = MMPRETRAIN_MODELS.build(dict(type='mmlt.TextClsHead', text=text, templates=templates))
        # No submodules: neither trained nor saved nor averaged, and always in eval mode.
        self.__dict__['vision'], self.__dict__['head'] = vision.eval(), head.eval()

    def init_weights(self) -> None:
        """Read the weights."""
        self.vision.init_weights()
        self.head.text.init_weights()
        self.head.text_features = None  # those of other weights, if any

    def set_class_info(self, info: ClassInfo) -> None:
        """Take the class names; :class:`ClassInfoHook` calls it before a run.

        Args:
            info (ClassInfo): What is known of the classes.
        """
        self.head.set_class_info(info)

    def stand_in(self) -> None:
        """See :meth:`TextClsHead.stand_in`."""
        self.head.stand_in()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Score pictures.

        Args:
            images (Tensor): Shape (N, 3, H, W), normalised for this model;
                another size than the model's is resized to it.

        Returns:
            Tensor: Shape (N, C), without gradient.

        Raises:
            InputError: Classes that are not known.
        """
        if next(self.vision.parameters()).device != images.device:
            self.vision.to(images.device)
            self.head.to(images.device)
        own = self.vision.image_size
        size = (own, own) if isinstance(own, int) else tuple(own)
        if tuple(images.shape[-2:]) != size:
            images = F.interpolate(images, size, mode='bicubic', antialias=True)
        return self.head(self.vision(images))


@MODELS.register_module()
class CUEClassifier(ImageClassifier):
    """An ``ImageClassifier`` whose loss is told what a frozen zero-shot model sees in the pictures.

    In training the zero-shot model scores the very pictures that the classifier
    gets, after their random changes, as in CUE's published code; the head's
    :class:`CUELoss` takes its best classes as further positives. Predictions
    are those of the plain classifier, which loads its checkpoints.

    Args:
        teacher (dict, optional): Arguments of :class:`ZeroShot`, for example
            ``dict(model='ViT-B-16', pretrained='openai', quick_gelu=True)``,
            and ``mean`` and ``std`` in 0..255, R, G, B, where its pictures are
            normalised in another way than the classifier's. None for a CUELoss
            with ``zero_shot_weight=0``. Defaults to None.
        **kwargs: See ``ImageClassifier``.

    Raises:
        InputError: A teacher for a head without CUELoss; a mean without
            deviation; a preprocessor that does not normalise, where ``mean``
            is given.
    """

    def __init__(self, teacher: dict | None = None, **kwargs):
        super().__init__(**kwargs)
        self.teacher = None
        if teacher is None:
            return
        if not any(isinstance(m, CUELoss) for m in self.head.modules()):
            raise InputError(
                'CUEClassifier has a teacher, but its head has no CUELoss that would use it: set model.head.loss='
                "dict(type='mmlt.CUELoss', ...), or model.teacher=None."
            )
        teacher = dict(teacher)
        mean, std = teacher.pop('mean', None), teacher.pop('std', None)
        self.teacher = ZeroShot(**teacher)
        self._set_normalisation(mean, std)

    def _set_normalisation(self, mean: Sequence[float] | None, std: Sequence[float] | None) -> None:
        self._renormalised = mean is not None
        if (mean is None) != (std is None):
            raise InputError("CUEClassifier's teacher has a mean or a std alone: give both, or neither.")
        if mean is None:
            return
        own = self.data_preprocessor
        if getattr(own, 'mean', None) is None or getattr(own, 'std', None) is None:
            raise InputError(
                "CUEClassifier's teacher has its own mean and std, but the data_preprocessor has none: give it mean "
                'and std.'
            )
        teacher_mean, teacher_std = (torch.tensor(list(v), dtype=torch.float32).view(-1, 1, 1) for v in (mean, std))
        self.register_buffer('_factor', own.std.float().cpu() / teacher_std, persistent=False)
        self.register_buffer('_shift', (own.mean.float().cpu() - teacher_mean) / teacher_std, persistent=False)

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The head's losses.

        Args:
            inputs (Tensor): Normalised images, (N, 3, H, W).
            data_samples (list[DataSample]): With labels.

        Returns:
            dict[str, Tensor]: Those of the head.
        """
        feats = self.extract_feat(inputs)
        if self.teacher is None:
            return self.head.loss(feats, data_samples)
        images = inputs * self._factor + self._shift if self._renormalised else inputs
        return self.head.loss(feats, data_samples, zero_shot=self.teacher(images))
