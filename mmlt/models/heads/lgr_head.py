"""VL-LTR's language-guided recognition head."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.anchors import Anchors
from mmlt.models.heads.anchor_head import AnchorHead, _check_scale
from mmlt.models.heads.lgr_functional import AnchorTable, fold_query, sentence_attention, text_similarity
from mmlt.registry import MODELS


class Branches(NamedTuple):
    """Logits of P_I and of P_T, each (N, C)."""

    visual: Tensor
    text: Tensor


@MODELS.register_module()
class LGRHead(AnchorHead):
    """Language-guided recognition head (VL-LTR, section 3.3, Eq. 4-7).

    Two branches share the image embedding E_I: an MLP, and the cosine with
    what attention gathers from the M anchor sentences E_T of every class::

        Q = W_q LN(E_I),  K = W_k LN(E_T),  G = softmax(Q K^T / sqrt(D)) E_T
        P_I = softmax(MLP(E_I)),  P_T = softmax(cos(E_I, G) / tau)
        loss = CE(P_I) + CE(P_T),  P = P_I + P_T

    Keys and G are never made (:mod:`mmlt.models.heads.lgr_functional`); the
    result is the same. The shift of the keys' LayerNorm and the bias of W_k
    cancel in the softmax and are left out. It is computed in single precision
    under autocast, too.

    :meth:`forward` gives ``log P``, so that ``softmax(forward(...))`` is P and
    everything that takes logits works.

    Args:
        num_classes (int): See :class:`AnchorHead`.
        in_channels (int): See :class:`AnchorHead`.
        anchors (str, optional): See :class:`AnchorHead`.
        num_anchors (int, optional): See :class:`AnchorHead`.
        hidden_channels (int, optional): Of the MLP. Defaults to None, 4 D.
        query_bias (bool): A bias in W_q; the published code has none.
            Defaults to True.
        identity_init (bool): W_q and W_k start as the identity, as in the
            published code; the paper does not say. Defaults to True.
        logit_scale (float, optional): 1 / tau. Defaults to None, that of the
            model that selected the anchors.
        learn_logit_scale (bool): Defaults to False.
        detach_norm (bool): No gradient through the norm of G, the published
            code's way on iNaturalist. Defaults to False.
        fusion (float): Share of P_I at test, ``fusion P_I + (1 - fusion)
            P_T``. The paper's sum is 0.5, the published code has 0.2, on
            iNaturalist 0.7. Defaults to 0.5.
        explain (int): Anchor sentences to tell for every prediction, see
            :meth:`predict`. Defaults to 0.
        **kwargs: See MMPretrain's ``ClsHead`` (loss, topk, cal_acc, init_cfg).

    Raises:
        InputError: See :class:`AnchorHead`; a fusion outside [0, 1].
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        anchors: str | None = None,
        num_anchors: int | None = None,
        hidden_channels: int | None = None,
        query_bias: bool = True,
        identity_init: bool = True,
        logit_scale: float | None = None,
        learn_logit_scale: bool = False,
        detach_norm: bool = False,
        fusion: float = 0.5,
        explain: int = 0,
        **kwargs,
    ):
        super().__init__(num_classes, in_channels, anchors, num_anchors, **kwargs)
        if not 0 <= fusion <= 1:
            raise InputError(f'LGRHead: fusion is {fusion}; it is the share of the visual branch, in [0, 1].')
        _check_scale(logit_scale)
        if hidden_channels is not None and hidden_channels < 1:
            raise InputError(f'LGRHead: hidden_channels is {hidden_channels}; give at least 1, or None for 4 D.')
        hidden_channels = 4 * in_channels if hidden_channels is None else hidden_channels
        self._make_attention(in_channels, query_bias, identity_init)
        self.mlp = nn.Sequential(
            nn.Linear(in_channels, hidden_channels), nn.ReLU(), nn.Linear(hidden_channels, num_classes)
        )
        self.scale = logit_scale
        self.log_scale = nn.Parameter(torch.zeros(()), requires_grad=learn_logit_scale)
        self.detach_norm, self.fusion, self.explain = detach_norm, fusion, explain
        if self.bank.features.shape[1]:
            self._start_scale()

    def _make_attention(self, channels: int, query_bias: bool, identity: bool) -> None:
        self.norm_query, self.norm_key = nn.LayerNorm(channels), nn.LayerNorm(channels, bias=False)
        self.query = nn.Linear(channels, channels, bias=query_bias)
        self.key = nn.Linear(channels, channels, bias=False)
        if identity:
            nn.init.eye_(self.query.weight)
            nn.init.eye_(self.key.weight)
            if query_bias:
                nn.init.zeros_(self.query.bias)

    def init_weights(self) -> None:
        """See :class:`AnchorHead`."""
        super().init_weights()
        self._start_scale()

    def take(self, anchors: Anchors) -> None:
        """See :class:`AnchorHead`."""
        super().take(anchors)
        self._start_scale()

    @torch.no_grad()
    def _start_scale(self) -> None:
        self.log_scale.copy_(self.bank.scale.log() if self.scale is None else torch.tensor(self.scale).log())

    @property
    def table(self) -> AnchorTable:
        """Tables of the anchors, where the anchors are."""
        own, table = self.bank.features, self.bank.derived.get('table')
        if table is None or (table.values.device, table.values.dtype) != (own.device, own.dtype):
            table = self.bank.derived['table'] = AnchorTable(own, self.bank.counts, self.norm_key.eps)
        return table

    def _fold(self, image: Tensor) -> Tensor:
        return fold_query(self.query(self.norm_query(image)), self.key.weight, self.norm_key.weight)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The image embedding, (N, D)."""
        return feats[-1]

    def logits(self, feats: tuple[Tensor, ...]) -> Branches:
        """Logits of both branches.

        Args:
            feats (tuple[Tensor]): The last is the image embedding, (N, D).

        Returns:
            Branches: Of P_I and of P_T, each (N, C).
        """
        image = self._image(feats)
        with torch.autocast(image.device.type, enabled=False):
            cosine = text_similarity(self._fold(image), F.normalize(image, dim=-1), self.table, self.detach_norm)
            return Branches(self.mlp(image), self.log_scale.exp() * cosine)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Log-probabilities of the fused prediction.

        Args:
            feats (tuple[Tensor]): See :meth:`logits`; or what it gave.

        Returns:
            Tensor: Shape (N, C).
        """
        branches = feats if isinstance(feats, Branches) else self.logits(feats)
        return self._fuse(*(logits.softmax(-1) for logits in branches)).log()

    def _fuse(self, visual: Tensor, text: Tensor) -> Tensor:
        fused = self.fusion * visual + (1 - self.fusion) * text
        return fused.clamp(min=torch.finfo(fused.dtype).tiny)

    def loss(self, feats: tuple[Tensor, ...], data_samples: list[DataSample], **kwargs) -> dict:
        """Cross entropy of both branches (VL-LTR, Eq. 9).

        Args:
            feats (tuple[Tensor]): See :meth:`logits`.
            data_samples (list[DataSample]): With ``gt_label`` or ``gt_score``.

        Returns:
            dict[str, Tensor]: ``loss_visual`` and ``loss_text``, with
            accuracies if ``cal_acc``.
        """
        losses, branches = {}, self.logits(feats)
        if self._forward_hooks:  # only what watches a head's output, as MORE does, needs a prediction in training
            self(branches)
        for branch, logits in branches._asdict().items():
            for key, value in self._get_loss(logits, data_samples, **kwargs).items():
                losses[f'{key}_{branch}'] = value
        return losses

    @torch.no_grad()
    def predict(
        self,
        feats: tuple[Tensor, ...],
        data_samples: list[DataSample | None] | None = None,
        explain: int | None = None,
    ) -> list[DataSample]:
        """Predict, and tell why if asked.

        Args:
            feats (tuple[Tensor]): See :meth:`logits`.
            data_samples (list[DataSample], optional): Defaults to None.
            explain (int, optional): How many anchor sentences to tell.
                Defaults to None, as given to the head.

        Returns:
            list[DataSample]: With ``pred_score`` (P, summing to 1) and
            ``pred_label``. If asked to explain, also ``visual_score`` (P_I),
            ``text_score`` (P_T), ``attention`` (over the M sentences of the
            predicted class) and ``anchor_sentences``: pairs of weight and
            sentence of that class, the most attended first.
        """
        explain = self.explain if explain is None else explain
        visual, text = (logits.softmax(-1) for logits in self.logits(feats))
        fused = self._fuse(visual, text)
        samples = self._get_predictions(fused.log(), data_samples)
        if explain:
            labels = fused.argmax(-1)
            image = self._image(feats)
            with torch.autocast(image.device.type, enabled=False):
                attention = sentence_attention(self._fold(image), labels, self.table)
            for i, sample in enumerate(samples):
                own = self.bank.sentences[int(labels[i])]
                top = attention[i].topk(min(explain, len(own)))
                told = [(float(w), own[int(m)]) for w, m in zip(*top)]
                sample.set_field(visual[i], 'visual_score')
                sample.set_field(text[i], 'text_score')
                sample.set_field(attention[i], 'attention')
                sample.set_field(told, 'anchor_sentences')
        return samples
