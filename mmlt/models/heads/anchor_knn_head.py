"""Nearest anchor sentences: a head without training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmlt.models.heads.anchor_head import AnchorHead, _check_scale
from mmlt.registry import MODELS


@MODELS.register_module()
class AnchorKNNHead(AnchorHead):
    """Nearest anchor sentences vote for their classes (the KNN head of VL-LTR, Table 4).

    The k sentences that are nearest to the image in the joint space vote with
    ``exp(cos / tau)``. The paper does not say which neighbours vote, or how.
    Nothing is trained.

    Args:
        num_classes (int): See :class:`AnchorHead`.
        in_channels (int): See :class:`AnchorHead`.
        anchors (str, optional): See :class:`AnchorHead`.
        num_anchors (int, optional): See :class:`AnchorHead`.
        num_neighbours (int): k. Defaults to 20.
        logit_scale (float, optional): 1 / tau. Defaults to None, that of the
            model that selected the anchors.
        **kwargs: See MMPretrain's ``ClsHead``.

    Raises:
        InputError: See :class:`AnchorHead`.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        anchors: str | None = None,
        num_anchors: int | None = None,
        num_neighbours: int = 20,
        logit_scale: float | None = None,
        **kwargs,
    ):
        super().__init__(num_classes, in_channels, anchors, num_anchors, **kwargs)
        _check_scale(logit_scale)
        self.num_neighbours, self.scale = num_neighbours, logit_scale

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The image embedding, (N, D)."""
        return feats[-1]

    def keys(self) -> tuple[Tensor, Tensor]:
        """The anchor sentences without padding.

        Returns:
            tuple[Tensor]: Their normalised embeddings, (T, D), and their
            classes, (T, ).
        """
        features, counts = self.bank.features, self.bank.counts
        real = torch.arange(features.shape[1], device=counts.device) < counts[:, None]
        return F.normalize(features[real], dim=-1), real.nonzero()[:, 0]

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logarithms of the votes.

        Args:
            feats (tuple[Tensor]): The last is the image embedding, (N, D).

        Returns:
            Tensor: Shape (N, C).
        """
        image = F.normalize(self._image(feats), dim=-1)
        keys, classes = self.keys()
        with torch.autocast(image.device.type, enabled=False):
            similarity = (self.bank.scale if self.scale is None else self.scale) * image @ keys.t()
        return log_votes(similarity, classes, self.num_classes, self.num_neighbours)


def log_votes(similarity: Tensor, classes: Tensor, num_classes: int, num_neighbours: int) -> Tensor:
    """Logarithms of the classes' votes, up to a constant for every image.

    Args:
        similarity (Tensor): Logarithm of the vote of every sentence, (N, T).
        classes (Tensor): Classes of the sentences, (T, ).
        num_classes (int): C.
        num_neighbours (int): How many sentences vote, if there are so many.

    Returns:
        Tensor: Shape (N, C), of classes without votes the logarithm of the
        smallest number.
    """
    nearest, which = similarity.topk(min(num_neighbours, classes.shape[0]))
    votes = similarity.new_zeros(similarity.shape[0], num_classes)  # not len(), which an export takes for a constant
    votes = votes.scatter_add(1, classes[which], (nearest - nearest[:, :1]).exp())
    return votes.clamp(min=torch.finfo(votes.dtype).tiny).log()
