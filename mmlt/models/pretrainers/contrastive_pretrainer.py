"""Contrastive pretraining of both towers on images with captions."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmengine.dist import get_rank
from mmengine.model import BaseModel
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from mmpretrain.structures import DataSample
from torch import Tensor

from mmlt.errors import InputError
from mmlt.registry import MODELS


@MODELS.register_module()
class ContrastivePretrainer(BaseModel):
    """Trains an image and a text tower on pairs of image and caption.

    Data samples carry ``caption`` (name it in ``PackInputs``'s
    ``algorithm_keys``). Where they carry ``gt_label`` too, all pairs of one
    label are positives of each other (class-wise); otherwise only the pair
    itself is (instance-wise, as CLIP).

    With ``mode='predict'`` the images are classified among the
    ``classes`` given by :meth:`set_class_info`, so a pretraining is validated
    by its zero-shot accuracy.

    Args:
        backbone (dict): Image tower.
        text (dict): Text tower.
        templates (str | list[str]): Prompts of the classes in ``predict``, see
            :func:`get_templates`. Defaults to ``'clip'``.
        loss (dict): Defaults to ``dict(type='mmlt.ContrastiveLoss')``.
        data_preprocessor (dict, optional): Defaults to
            ``dict(type='mmlt.CLIPDataPreprocessor')``.
        init_cfg (dict, optional): Defaults to None.
    """

    def __init__(
        self,
        backbone: dict,
        text: dict,
        templates: str | list[str] = 'clip',
        loss: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        data_preprocessor = MMPRETRAIN_MODELS.build(data_preprocessor or dict(type='mmlt.CLIPDataPreprocessor'))
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MMPRETRAIN_MODELS.build(backbone)
        self.head = MMPRETRAIN_MODELS.build(
            dict(
                type='mmlt.TextClsHead',
                text=text,
                templates=templates,
                logit_scale='pretrained',
                learn_logit_scale=True,
            )
        )
        self.loss_module = MMPRETRAIN_MODELS.build(loss or dict(type='mmlt.ContrastiveLoss'))

    @property
    def text(self):
        """The text tower, which lives in the head."""
        return self.head.text

    def forward(self, inputs: Tensor, data_samples: list[DataSample] | None = None, mode: str = 'tensor'):
        """Run one of MMEngine's modes.

        Args:
            inputs (Tensor): Images of shape (N, 3, H, W).
            data_samples (list[DataSample], optional): Defaults to None.
            mode (str): 'tensor' gives image features, 'loss' a dict of
                losses, 'predict' data samples with predictions.
        """
        image = self.backbone(inputs)
        if mode == 'tensor':
            return image
        if mode == 'predict':
            return self.head.predict(image, data_samples)
        return self.loss(image[-1], data_samples)

    def loss(self, image: Tensor, data_samples: list[DataSample]) -> dict:
        """Contrastive loss of one batch.

        Args:
            image (Tensor): Image features of shape (N, D).
            data_samples (list[DataSample]): With ``caption``, perhaps
                ``gt_label``.

        Returns:
            dict[str, Tensor]: ``loss``, and ``logit_scale`` for the log.

        Raises:
            InputError: The data samples have no caption.
        """
        if 'caption' not in data_samples[0]:
            raise InputError(
                "The data samples have no caption: end the pipeline with PackInputs(algorithm_keys=('caption', ))."
            )
        text = self.text(self.text.tokenize([s.caption for s in data_samples]))
        if 'gt_label' in data_samples[0]:
            labels = torch.cat([s.gt_label for s in data_samples]).to(image.device)
        else:
            labels = torch.arange(len(image), device=image.device) + get_rank() * len(image)  # every pair is its own
        scale = self.text.logit_scale
        loss = self.loss_module(F.normalize(image, dim=-1), F.normalize(text, dim=-1), labels, scale)
        return dict(loss=loss, logit_scale=scale.detach())
