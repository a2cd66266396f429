"""A trained classifier as one graph: pictures in, probabilities out, no text tower."""

from __future__ import annotations

from functools import singledispatch

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmpretrain.models import ImageClassifier
from mmpretrain.models.heads import MultiLabelClsHead
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models import AnchorKNNHead, LGRHead, NCMHead, TextClsHead
from mmlt.models.heads.anchor_knn_head import log_votes
from mmlt.models.heads.lgr_functional import AnchorTable, fold_query, group_similarity


class CosineLogits(nn.Module):
    """Cosines with constant class vectors, scaled.

    Args:
        vectors (Tensor): Scaled class vectors, (C, D).
    """

    vectors: Tensor

    def __init__(self, vectors: Tensor):
        super().__init__()
        self.register_buffer('vectors', vectors.detach().clone())

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits (N, C) of features (N, D), the last of ``feats``."""
        return F.normalize(feats[-1], dim=-1) @ self.vectors.t()


class LGRLogits(nn.Module):
    """:class:`LGRHead` with its anchors as constants, all classes in one product.

    Args:
        head (LGRHead): With anchors.
    """

    values: Tensor
    inv_std: Tensor
    gram: Tensor
    padding: Tensor | None
    key: Tensor
    key_norm: Tensor
    scale: Tensor

    def __init__(self, head: LGRHead):
        super().__init__()
        self.norm_query, self.query, self.mlp = head.norm_query, head.query, head.mlp
        self.fusion = head.fusion
        table = AnchorTable(head.bank.features, head.bank.counts, head.norm_key.eps, chunk=head.num_classes)
        ((_, values, inv_std, gram, padding),) = table.chunks()
        constants = dict(values=values, inv_std=inv_std, gram=gram, padding=padding)
        constants.update(key=head.key.weight, key_norm=head.norm_key.weight, scale=head.log_scale.exp())
        for name, tensor in constants.items():
            self.register_buffer(name, None if tensor is None else tensor.detach().clone())

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Log-probabilities (N, C) of features (N, D), the last of ``feats``."""
        image = feats[-1]
        folded = fold_query(self.query(self.norm_query(image)), self.key, self.key_norm)
        queries = torch.cat([folded, F.normalize(image, dim=-1)])
        cosine = group_similarity(queries, self.values, self.inv_std, self.gram, self.padding)[0]
        visual, text = self.mlp(image).softmax(-1), (self.scale * cosine).softmax(-1)
        fused = self.fusion * visual + (1 - self.fusion) * text
        return fused.clamp(min=torch.finfo(fused.dtype).tiny).log()


class NeighbourLogits(nn.Module):
    """:class:`AnchorKNNHead` with its anchors as constants.

    Args:
        head (AnchorKNNHead): With anchors.
    """

    keys: Tensor
    classes: Tensor
    scale: Tensor

    def __init__(self, head: AnchorKNNHead):
        super().__init__()
        self.num_classes, self.num_neighbours = head.num_classes, head.num_neighbours
        keys, classes = head.keys()
        scale = torch.as_tensor(head.bank.scale if head.scale is None else head.scale)
        for name, tensor in dict(keys=keys, classes=classes, scale=scale).items():
            self.register_buffer(name, tensor.detach().clone())

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logarithms of the votes (N, C) for features (N, D), the last of ``feats``."""
        similarity = self.scale * F.normalize(feats[-1], dim=-1) @ self.keys.t()
        return log_votes(similarity, self.classes, self.num_classes, self.num_neighbours)


@singledispatch
def graph_head(head: nn.Module) -> nn.Module:
    """A head without what only a training needs; most heads are used as they are.

    Args:
        head (nn.Module): The head of a trained classifier.

    Returns:
        nn.Module: Takes the tuple of features, gives logits.
    """
    return head


@graph_head.register
def _(head: TextClsHead) -> nn.Module:
    return CosineLogits(head.logit_scale * head.class_embeddings())


@graph_head.register
def _(head: NCMHead) -> nn.Module:
    head((head.means.new_zeros(1, head.in_channels),))  # says that the means are missing
    return CosineLogits(F.normalize(head.means, dim=1))


@graph_head.register
def _(head: LGRHead) -> nn.Module:
    head.check_anchors()
    return LGRLogits(head)


@graph_head.register
def _(head: AnchorKNNHead) -> nn.Module:
    head.check_anchors()
    return NeighbourLogits(head)


def plain_classifier(model: BaseModel) -> ImageClassifier:
    """The plain classifier of a trained model; what wraps one is merged here.

    Args:
        model (BaseModel): A trained model. A wrapper with low-rank weights
            says by ``merge()`` what it is without them.

    Returns:
        ImageClassifier: The classifier.

    Raises:
        InputError: It is no image classifier.
    """
    if hasattr(model, 'merge'):
        model = model.merge()
    if not isinstance(model, ImageClassifier):
        raise InputError(f'Only an ImageClassifier can be exported, not a {type(model).__name__}.')
    return model


class DeployedClassifier(nn.Module):
    """Normalisation, backbone, neck and head of a trained classifier, for export.

    Class or anchor embeddings are constants, the text tower is gone.

    Args:
        model (BaseModel): A trained model, in eval mode; see
            :func:`plain_classifier`.
        bgr (bool): Whether its pictures come to its preprocessor in BGR, as
            from files; see
            :func:`mmlt.datasets.transforms.takes_and_gives_bgr`.
            Defaults to True.

    Raises:
        InputError: It is no image classifier, or pads its pictures.
    """

    mean: Tensor
    std: Tensor

    @torch.no_grad()
    def __init__(self, model: BaseModel, bgr: bool = True):
        super().__init__()
        model = plain_classifier(model)
        before = model.data_preprocessor
        if before.pad_size_divisor > 1:
            raise InputError('A classifier that pads its pictures (pad_size_divisor) cannot be exported.')
        mean, std = (before.mean, before.std) if before._enable_normalize else (torch.zeros(1), torch.ones(1))
        self.register_buffer('mean', mean.clone())
        self.register_buffer('std', std.clone())
        self.to_bgr = before.to_rgb != bgr  # the backbone takes the channels in BGR
        self.backbone, self.neck = model.backbone, model.neck
        self.multi_label = isinstance(model.head, MultiLabelClsHead)
        self.head = graph_head(model.head)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Classify pictures.

        Args:
            images (Tensor): RGB in 0..255, resized and cropped, (N, 3, H, W),
                float.

        Returns:
            tuple[Tensor]: Logits and probabilities, each (N, C).
        """
        images = images.flip(1) if self.to_bgr else images
        feats = self.backbone((images - self.mean) / self.std)
        if self.neck is not None:
            feats = self.neck(feats)
        logits = self.head(feats)
        return logits, logits.sigmoid() if self.multi_label else logits.softmax(-1)
