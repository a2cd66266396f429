"""Heads that compare an image with anchor sentences: VL-LTR's LGR head, and nearest neighbours."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.registry import DATASETS as ROOT_DATASETS
from mmpretrain.models.heads import ClsHead
from mmpretrain.structures import DataSample
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.heads.lgr_functional import AnchorTable, fold_query, sentence_attention, text_similarity
from mmlt.models.text.anchors import Anchors
from mmlt.registry import MODELS
from mmlt.utils import tensors_fingerprint
from mmlt.utils.text_tensor import tensor_to_text, text_to_tensor


class AnchorHead(ClsHead):
    """What heads with anchor sentences share: reading, checking and keeping them.

    The anchors are read from their file when a training starts, and travel in
    the checkpoint from then on, with their texts.

    Args:
        num_classes (int): C.
        in_channels (int): Width of the joint image-text space, D.
        anchors (str, optional): File that :class:`AnchorSelectionHook` wrote.
            Defaults to None, for a model that is only loaded from a
            checkpoint.
        num_anchors (int, optional): M; the file must have as many. Defaults
            to None, whatever it has.
        **kwargs: See MMPretrain's ``ClsHead``.

    Raises:
        InputError: The file is missing, was made from other weights, texts or
            classes, or its shape disagrees with the head's.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        anchors: str | None = None,
        num_anchors: int | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_classes, self.in_channels = num_classes, in_channels
        self.anchors, self.num_anchors = anchors, num_anchors
        self.classes: tuple[str, ...] | None = None
        self.facts: dict = {}
        self._sentences: list[list[str]] | None = None
        self.register_buffer('anchor_features', torch.zeros(num_classes, 0, in_channels))
        self.register_buffer('anchor_counts', torch.zeros(num_classes, dtype=torch.long))
        self.register_buffer('anchor_scale', torch.zeros(()))
        self.register_buffer('anchor_texts', torch.zeros(0, dtype=torch.uint8))  # JSON in UTF-8

    def set_class_info(self, classes: Sequence[str], class_counts=None, class_texts=None) -> None:
        """Remember the classes, to compare them with those of the anchors; :class:`ClassInfoHook` calls it.

        Args:
            classes (Sequence[str]): C class names.
            class_counts (Sequence[int], optional): Not used here.
                Defaults to None.
            class_texts (str | Sequence, optional): The corpus, compared with
                that of the anchors when they are read. Defaults to None.
        """
        if len(classes) != self.num_classes:
            raise InputError(
                f'The head has num_classes={self.num_classes}, but the dataset has {len(classes)} classes: set '
                f'model.head.num_classes={len(classes)}.'
            )
        self.classes, self.class_texts = tuple(str(c) for c in classes), class_texts

    def init_weights(self) -> None:
        """Read the anchors; called before a training."""
        super().init_weights()
        if self.anchors is None:
            raise InputError(
                f'{type(self).__name__} has no anchor sentences: give model.head.anchors=<file>, which a CVLP training '
                'writes at its end.'
            )
        anchors = Anchors.load(self.anchors)
        classes, number, width = anchors.features.shape
        for name, own, theirs in (
            ('num_classes (C)', self.num_classes, classes),
            ('num_anchors (M)', number if self.num_anchors is None else self.num_anchors, number),
            ('in_channels (D)', self.in_channels, width),
        ):
            if own != theirs:
                raise InputError(
                    f"'{self.anchors}' disagrees with the head: {name} is {theirs} in the file and {own} in the "
                    'config. Select the anchors anew, or correct the config.'
                )
        self._check_origin(anchors.facts)
        self.facts = anchors.facts
        self._take(anchors)

    def _check_origin(self, facts: dict) -> None:
        theirs = facts.get('classes')
        if self.classes is not None and theirs is not None and tuple(theirs) != self.classes:
            i, a, b = next((i, a, b) for i, (a, b) in enumerate(zip(theirs, self.classes)) if a != b)
            raise InputError(
                f"The anchors in '{self.anchors}' are of another class list: class {i} is '{a}' there and '{b}' in the "
                'dataset. Select them anew with this class list.'
            )
        ours = (facts.get('texts') or {}).get('type') == 'mmlt.ClassTexts'
        if self.classes is not None and facts.get('corpus') and ours:
            corpus = ROOT_DATASETS.build(facts['texts'])
            if corpus.fingerprint(self.classes, self.class_texts) != facts['corpus']:
                raise InputError(
                    f"The anchors in '{self.anchors}' were selected from another corpus than the dataset's class texts "
                    'are now: train the pretraining stage anew (--restart), or select them anew.'
                )

    def check_checkpoint(self, state: dict[str, Tensor], source: str) -> None:
        """Compare a checkpoint that a training starts from with the weights that made the anchors.

        Args:
            state (dict[str, Tensor]): The checkpoint's state dict.
            source (str): Its name.

        Raises:
            InputError: Its image tower is not the one that the anchors fit.
        """
        own = {k.removeprefix('backbone.'): v for k, v in state.items() if k.startswith('backbone.')}
        expected = self.facts.get('image_tower')
        if expected is not None and own and tensors_fingerprint(own) != expected:
            raise InputError(
                f"The anchors in '{self.anchors}' were made with other weights than those of '{source}': take both "
                'from one training, or select anchors for this checkpoint with tools/select_anchors.py.'
            )

    def _take(self, anchors: Anchors) -> None:
        device = self.anchor_counts.device
        self.anchor_features = anchors.features.to(device, torch.float32)
        self.anchor_counts = anchors.counts.to(device)
        self.anchor_scale = torch.tensor(anchors.logit_scale, device=device)
        self.anchor_texts = text_to_tensor(json.dumps(anchors.sentences)).to(device)
        self.forget_tables()

    def _preload(self) -> None:
        """Take the anchors of a file that is there already, so that copies of the model have the right shapes."""
        if self.anchors is not None and os.path.isfile(self.anchors):
            self._take(Anchors.load(self.anchors))

    def forget_tables(self) -> None:
        """Called where the anchors changed."""
        self._sentences = None

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in ('anchor_features', 'anchor_texts'):
            stored, own = state_dict.get(prefix + name), getattr(self, name)
            if stored is not None and stored.shape != own.shape:
                setattr(self, name, own.new_zeros(stored.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)
        self.forget_tables()

    @property
    def sentences(self) -> list[list[str]]:
        """Texts of the anchor sentences of every class."""
        if self._sentences is None:
            self._sentences = json.loads(tensor_to_text(self.anchor_texts))
        return self._sentences

    def _image(self, feats: tuple[Tensor, ...]) -> Tensor:
        image = feats[-1].to(torch.promote_types(feats[-1].dtype, torch.float32))
        if image.shape[-1] != self.in_channels:
            raise InputError(
                f'The image features are {image.shape[-1]} wide and the head expects {self.in_channels}: set '
                f'model.head.in_channels={image.shape[-1]}.'
            )
        self.check_anchors()
        return image

    def check_anchors(self) -> None:
        """Raise an :class:`InputError` if there are no anchors yet."""
        if not self.anchor_features.shape[1]:
            raise InputError(
                f'{type(self).__name__} has no anchor sentences yet: train it with model.head.anchors=<file>, or load '
                'a trained checkpoint.'
            )


def _check_scale(logit_scale: float | None) -> None:
    if logit_scale is not None and not logit_scale > 0:
        raise InputError(f'logit_scale is {logit_scale}; it is 1 / tau, so positive, or None for that of the anchors.')


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
        self.norm_query = nn.LayerNorm(in_channels)
        self.norm_key = nn.LayerNorm(in_channels, bias=False)
        self.query = nn.Linear(in_channels, in_channels, bias=query_bias)
        self.key = nn.Linear(in_channels, in_channels, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(in_channels, hidden_channels), nn.ReLU(), nn.Linear(hidden_channels, num_classes)
        )
        if identity_init:
            nn.init.eye_(self.query.weight)
            nn.init.eye_(self.key.weight)
            if query_bias:
                nn.init.zeros_(self.query.bias)
        self.scale = logit_scale
        self.log_scale = nn.Parameter(torch.zeros(()), requires_grad=learn_logit_scale)
        self.detach_norm, self.fusion, self.explain = detach_norm, fusion, explain
        self._table: AnchorTable | None = None
        self._branches: tuple[Tensor, Tensor] | None = None  # logits of the last call
        self._preload()

    def _take(self, anchors: Anchors) -> None:
        super()._take(anchors)
        with torch.no_grad():
            self.log_scale.fill_(torch.tensor(anchors.logit_scale if self.scale is None else self.scale).log())

    def forget_tables(self) -> None:
        """See :class:`AnchorHead`."""
        super().forget_tables()
        self._table = None

    @property
    def table(self) -> AnchorTable:
        """Tables of the anchors, where the anchors are."""
        own = self.anchor_features
        if self._table is None or (self._table.values.device, self._table.values.dtype) != (own.device, own.dtype):
            self._table = AnchorTable(own, self.anchor_counts, self.norm_key.eps)
        return self._table

    def _fold(self, image: Tensor) -> Tensor:
        return fold_query(self.query(self.norm_query(image)), self.key.weight, self.norm_key.weight)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The image embedding, (N, D)."""
        return feats[-1]

    def logits(self, feats: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Logits of both branches.

        Args:
            feats (tuple[Tensor]): The last is the image embedding, (N, D).

        Returns:
            tuple[Tensor]: Of P_I and of P_T, each (N, C).
        """
        image = self._image(feats)
        with torch.autocast(image.device.type, enabled=False):
            cosine = text_similarity(self._fold(image), F.normalize(image, dim=-1), self.table, self.detach_norm)
            return self.mlp(image), self.log_scale.exp() * cosine

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Log-probabilities of the fused prediction, (N, C)."""
        self._branches = self.logits(feats)
        return self._fuse(*(logits.softmax(-1) for logits in self._branches)).log()

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
        losses = {}
        self(feats)  # as a call, so that what watches a head's output, as MORE does, sees it in training too
        branches, self._branches = self._branches, None
        for branch, logits in zip(('visual', 'text'), branches):
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
            sentences = self.sentences
            for i, sample in enumerate(samples):
                own = sentences[int(labels[i])]
                top = attention[i].topk(min(explain, len(own)))
                told = [(float(w), own[int(m)]) for w, m in zip(*top)]
                sample.set_field(visual[i], 'visual_score')
                sample.set_field(text[i], 'text_score')
                sample.set_field(attention[i], 'attention')
                sample.set_field(told, 'anchor_sentences')
        return samples


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
        self._preload()

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The image embedding, (N, D)."""
        return feats[-1]

    def keys(self) -> tuple[Tensor, Tensor]:
        """The anchor sentences without padding.

        Returns:
            tuple[Tensor]: Their normalised embeddings, (T, D), and their
            classes, (T, ).
        """
        number = self.anchor_features.shape[1]
        real = torch.arange(number, device=self.anchor_counts.device) < self.anchor_counts[:, None]
        return F.normalize(self.anchor_features[real], dim=-1), real.nonzero()[:, 0]

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
            similarity = (self.anchor_scale if self.scale is None else self.scale) * image @ keys.t()
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
