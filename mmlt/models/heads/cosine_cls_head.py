"""Classification by cosines with trained class vectors, which may start from texts or from class means."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.models.heads import ClsHead
from torch import Tensor, nn

from mmlt.errors import InputError
from mmlt.models.heads.baseline_heads import mean_features
from mmlt.models.heads.text_cls_head import TextClsHead
from mmlt.models.text.open_clip_text import OpenCLIPText
from mmlt.registry import MODELS
from mmlt.utils.class_info import ClassInfo, not_told
from mmlt.utils.renamed import renamed


def centred(embeddings: Tensor) -> Tensor:
    """Normalise, subtract the mean over the classes, normalise again.

    Text embeddings share a large part that tells no class from another.

    Args:
        embeddings (Tensor): Shape (C, D), at least two classes.

    Returns:
        Tensor: Shape (C, D), rows of length 1.
    """
    embeddings = F.normalize(embeddings, dim=-1)
    return F.normalize(embeddings - embeddings.mean(0), dim=-1)


def before_projection(embeddings: Tensor, projection: Tensor) -> Tensor:
    """Map vectors of the joint space back to where image features are before their projection P.

    ``w = P t``: then ``f . w = (P^T f) . t``, so a class vector w scores a
    feature f as the text t scores the projected feature. So LIFT begins
    (``init_head_text_feat`` of ``trainer.py`` in the published code).

    Args:
        embeddings (Tensor): t, (C, D).
        projection (Tensor): P, (W, D).

    Returns:
        Tensor: Shape (C, W), rows of length 1.
    """
    return F.normalize(embeddings @ projection.t(), dim=-1)


def class_mean_vectors(features: Tensor, labels: Tensor, num_classes: int, normalised: bool = True) -> Tensor:
    """Mean feature of every class as its class vector, ``w_c = m_c / ||m_c||``, ``m_c`` the mean of ``f / ||f||``.

    Args:
        features (Tensor): f, (N, D).
        labels (Tensor): Integers of shape (N, ), all C classes among them.
        num_classes (int): C.
        normalised (bool): Whether the features are normalised before the mean,
            as they are in the cosine; False as LIFT's published code has it
            (``init_head_class_mean`` of ``trainer.py``). Defaults to True.

    Returns:
        Tensor: Shape (C, D), rows of length 1.

    Raises:
        InputError: A label outside [0, C), or a class without features.
    """
    if normalised:
        features = F.normalize(features, dim=-1)
    return F.normalize(mean_features(features, labels, num_classes), dim=-1)


@MODELS.register_module()
class CosineClsHead(ClsHead):
    """Cosine classifier, ``z_c = logit_scale * cos(f, w_c)``, initialised from class texts (Shi et al. 2024, LIFT).

    The class vectors are trained. They begin at the texts of the classes: the
    normalised text embeddings, and for features that are not projected
    (``OpenCLIPVision(projection=False)``) those mapped back through the visual
    projection. The text tower serves once, before a training, and is not kept.
    Where there is no text tower they begin at the class means of the training
    features (LIFT's choice then): :class:`ClassMeansHook` computes them.

    Class names come from the dataset through :class:`ClassInfoHook`.

    Args:
        num_classes (int): C.
        in_channels (int): Width of the features.
        logit_scale (float): Defaults to 25, as in LIFT.
        init (str): Where the class vectors begin, 'text', 'class_means' or
            'random'. Defaults to 'text'.
        text (dict, optional): Text tower for ``init='text'``, for example
            ``dict(type='mmlt.OpenCLIPText', model='ViT-B-16',
            pretrained='openai')``, of the same model and weights as the
            backbone. Defaults to None.
        templates (str | Sequence[str]): Prompts, see :func:`get_templates`.
            Defaults to 'clip'.
        projected (bool): Whether the features are in the joint space, that is,
            the backbone has ``projection=True``. Defaults to False.
        centre (bool): Centre the text embeddings, see :func:`centred`.
            Defaults to False.
        **kwargs: See MMPretrain's ``ClsHead`` (loss, topk, cal_acc, init_cfg).

    Raises:
        InputError: No text tower; no class names, or not C of them; features
            of another width than the head or the tower; no class means yet.
    """

    @renamed(scale='logit_scale')
    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        logit_scale: float = 25.0,
        init: str = 'text',
        text: dict | None = None,
        templates: str | Sequence[str] = 'clip',
        projected: bool = False,
        centre: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if init not in ('text', 'class_means', 'random'):
            raise InputError(f"CosineClsHead's init is '{init}'; choose 'text', 'class_means' or 'random'.")
        if init == 'text' and text is None:
            raise InputError(
                "CosineClsHead starts from class texts and has no text tower: give model.head.text=dict(type='mmlt."
                "OpenCLIPText', ...), or init='class_means', or init='random'."
            )
        if not logit_scale > 0:
            raise InputError(f"CosineClsHead's logit_scale is {logit_scale}; it must be positive (LIFT: 25).")
        self.num_classes, self.in_channels, self.logit_scale = num_classes, in_channels, logit_scale
        self.text, self.templates, self.projected, self.centre = text, templates, projected, centre
        self.classes: Sequence[str] | None = None
        self._waits_for_classes = self.waits_for_features = False
        self.from_text, self.from_features = init == 'text', init == 'class_means'
        self.weight = nn.Parameter(F.normalize(torch.randn(num_classes, in_channels), dim=-1))

    def set_class_info(self, info: ClassInfo) -> None:
        """Take the class names; :class:`ClassInfoHook` calls it before a run.

        Args:
            info (ClassInfo): What is known of the classes.
        """
        info.check_number(self.num_classes)
        self.classes = info.classes
        if self._waits_for_classes:
            self._start_from_texts()

    def init_weights(self) -> None:
        """Start the class vectors from the texts, or as soon as the classes are known; called before a training.

        Class means come after it, by :meth:`start_from_features`; a checkpoint
        with class vectors that is loaded in between is what is wanted instead.
        """
        super().init_weights()
        self.waits_for_features = self.from_features
        if self.from_text and self.classes is None:
            self._waits_for_classes = True
        elif self.from_text:
            self._start_from_texts()

    @torch.no_grad()
    def _start_from_texts(self) -> None:
        texts = TextClsHead(text=self.text, templates=self.templates, classes=self.classes)
        projection = None if self.projected else self._projection(texts.text)
        texts.init_weights()
        embeddings = texts.to(self.weight.device).eval().class_embeddings()
        if self.centre:
            embeddings = centred(embeddings)
        if projection is not None:
            embeddings = before_projection(embeddings, projection.to(embeddings))
        if embeddings.shape[1] != self.in_channels:
            raise InputError(
                f"The class vectors from texts are {embeddings.shape[1]} wide and the head's in_channels is "
                f'{self.in_channels}: set model.head.in_channels={embeddings.shape[1]}, and model.head.projected to '
                "the backbone's projection."
            )
        self.weight.copy_(embeddings)
        self._waits_for_classes = False

    @torch.no_grad()
    def start_from_features(self, features: Tensor, labels: Tensor, normalised: bool = True) -> None:
        """Start the class vectors from class means, once; :class:`ClassMeansHook` calls it before a training.

        Args:
            features (Tensor): Of the training set, (N, D).
            labels (Tensor): Integers of shape (N, ), all C classes among them.
            normalised (bool): See :func:`class_mean_vectors`.
                Defaults to True.
        """
        self._check_width(features)
        self.weight.copy_(class_mean_vectors(features, labels, self.num_classes, normalised))
        self.waits_for_features = False

    def _check_width(self, features: Tensor) -> None:
        if features.shape[-1] != self.in_channels:
            raise InputError(
                f'The image features are {features.shape[-1]} wide and the head expects {self.in_channels}: set '
                f'model.head.in_channels={features.shape[-1]}.'
            )

    def _projection(self, text: OpenCLIPText) -> Tensor:
        if text.visual_projection is None:
            raise InputError(
                f"The image tower of '{text.model_name}' has no projection of its own through which texts could be "
                'mapped back: set model.head.projected=True, with the projected features of the backbone.'
            )
        return text.visual_projection

    def _load_from_state_dict(self, state_dict, prefix, *args):
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + 'weight' in state_dict:
            self._waits_for_classes = self.waits_for_features = False

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Normalised feature, (N, D), in single precision at least."""
        return F.normalize(feats[-1].to(torch.promote_types(feats[-1].dtype, torch.float32)), dim=-1)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits.

        Args:
            feats (tuple[Tensor]): The last is the image feature, (N, D).

        Returns:
            Tensor: Shape (N, C), in [-logit_scale, logit_scale].
        """
        image = self.pre_logits(feats)
        self._check_width(image)
        if self.waits_for_features:
            raise InputError(
                "CosineClsHead starts from class means and has none yet: add dict(type='mmlt.ClassMeansHook') to "
                "custom_hooks, give a checkpoint, or set init='random'."
            )
        if self._waits_for_classes:
            raise not_told('CosineClsHead, which starts from class texts,', 'the classes', "set init='random'")
        with torch.autocast(image.device.type, enabled=False):
            return self.logit_scale * image @ F.normalize(self.weight, dim=-1).to(image.dtype).t()
