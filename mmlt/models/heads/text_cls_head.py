"""Classification against the texts of the classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from mmpretrain.models.heads import ClsHead
from mmpretrain.registry import MODELS as MMPRETRAIN_MODELS
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmlt.checkpoints import whole_file
from mmlt.errors import InputError
from mmlt.models.text.functional import TextPlan
from mmlt.models.text.open_clip_text import bounded_scale
from mmlt.registry import MODELS
from mmlt.utils import HostCount
from mmlt.utils.class_info import ClassInfo, not_told
from mmlt.utils.precision import exact_product
from mmlt.utils.prompts import class_prompts


@MODELS.register_module()
class TextClsHead(ClsHead):
    """Image-text softmax over the classes (BALLAD, Eq. 2 and 4).

    The logit of class k is ``scale * cos(image, text_k)``. The text of a class
    is its name in a prompt template; the prompts are tokenised once. The text
    tower is trained (``text.frozen=False``: encoded at every step), frozen
    (encoded once), or absent (``text=None`` with ``class_embeddings``).

    Class names come from the dataset through :class:`ClassInfoHook`, or from
    ``classes``, or with a checkpoint, which carries the prompts' tokens.

    Args:
        text (dict, optional): Text tower, for example
            ``dict(type='mmlt.OpenCLIPText', model='RN50',
            pretrained='openai')``. Defaults to None.
        templates (str | Sequence[str]): Prompt template or templates, see
            :func:`get_templates`. Defaults to ``'clip'``.
        prompt_mode (str): What several templates are for: ``'ensemble'``
            averages their normalised features; ``'random'`` draws one per
            training step, the same in all processes, and predicts with the
            first (BALLAD, Table 10). Defaults to ``'ensemble'``.
        text_adapter (dict, optional): An adapter on the text features, before
            normalisation (BALLAD, Table 6). Defaults to None.
        logit_scale (float | str): A fixed number, or ``'pretrained'`` for the
            text tower's own. BALLAD's paper says temperature 1.0, its
            published code uses 100, and training with 1 does not work.
            Defaults to 100.
        learn_logit_scale (bool): Train the logarithm of the scale, clamped to
            100 as in CLIP. Defaults to False.
        classes (Sequence[str], optional): Class names. Defaults to None.
        class_embeddings (str, optional): A ``.safetensors`` file written by
            :meth:`save_class_embeddings`, which replaces the text tower.
            Defaults to None.
        seed (int): Seed of the random templates. Defaults to 0.
        **kwargs: See MMPretrain's ``ClsHead`` (loss, topk, cal_acc, init_cfg).

    Raises:
        InputError: Neither text tower nor embeddings; no class names; features
            of another width than the texts.
    """

    class_tokens: Tensor

    def __init__(
        self,
        text: dict | None = None,
        templates: str | Sequence[str] = 'clip',
        prompt_mode: str = 'ensemble',
        text_adapter: dict | None = None,
        logit_scale: float | str = 100.0,
        learn_logit_scale: bool = False,
        classes: Sequence[str] | None = None,
        class_embeddings: str | None = None,
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if (text is None) == (class_embeddings is None):
            raise InputError(
                'TextClsHead needs either a text tower (text=...) or class_embeddings=<file>, one of them.'
            )
        if prompt_mode not in ('ensemble', 'random'):
            raise InputError(f"TextClsHead's prompt_mode is '{prompt_mode}'; choose 'ensemble' or 'random'.")
        self.text = None if text is None else MMPRETRAIN_MODELS.build(text)
        self.text_adapter = None if text_adapter is None else MMPRETRAIN_MODELS.build(text_adapter)
        self.templates, self.prompt_mode, self.seed = templates, prompt_mode, seed
        self.classes: Sequence[str] | None = None
        self._build_scale(logit_scale, learn_logit_scale)

        # (T, C, L) tokens of all prompts; (T, C, D) their features while the tower stays as it is.
        self.register_buffer('class_tokens', torch.zeros(0, 0, 0, dtype=torch.long))
        self.register_buffer('text_features', None, persistent=False)
        self.register_buffer('steps', torch.zeros((), dtype=torch.long))
        self._steps = HostCount()
        self._plans: dict[tuple, TextPlan | None] = {}  # of the prompts in use, by device
        if class_embeddings is not None:
            self.text_features = _read_embeddings(class_embeddings)
        if classes is not None:
            self.set_class_info(ClassInfo(classes))

    def _build_scale(self, logit_scale: float | str, learn: bool) -> None:
        self.log_scale = None
        if logit_scale == 'pretrained':
            if self.text is None:
                raise InputError("logit_scale='pretrained' needs a text tower; give a number.")
            self._fixed_scale = None
            self.text.clip.logit_scale.requires_grad_(learn)
        elif isinstance(logit_scale, str) or not logit_scale > 0:
            raise InputError(f"logit_scale is {logit_scale!r}; it must be a positive number or 'pretrained'.")
        elif learn:
            self.log_scale = nn.Parameter(torch.tensor(math.log(logit_scale)))
        else:
            self._fixed_scale = float(logit_scale)

    @property
    def logit_scale(self) -> Tensor | float:
        """The factor on the cosine, 1 / temperature."""
        if self.log_scale is not None:
            return bounded_scale(self.log_scale)
        return self.text.logit_scale if self._fixed_scale is None else self._fixed_scale

    @property
    def takes_any_classes(self) -> bool:
        """Whether the classes are those of the texts now, not those of the training."""
        return self.text is not None

    @property
    def _text_is_constant(self) -> bool:
        return self.text is None or self.text.frozen

    def set_class_info(self, info: ClassInfo) -> None:
        """Take the class names; :class:`ClassInfoHook` calls it before a run.

        Args:
            info (ClassInfo): What is known of the classes.
        """
        if self.text is None:
            if self.text_features.shape[1] != len(info.classes):
                raise InputError(
                    f'The class embeddings hold {self.text_features.shape[1]} classes, but the dataset has '
                    f'{len(info.classes)}: make them anew from this class list.'
                )
        elif info.classes != self.classes:
            prompts = class_prompts(info.classes, self.templates)
            tokens = torch.stack([self.text.tokenize(p) for p in prompts])
            self.class_tokens = tokens.to(self.class_tokens.device)
            self.text_features = None
            self._plans.clear()
        self.classes = info.classes

    def stand_in(self) -> None:
        """Random text features where those of all prompts would be encoded once, and a step is only tried."""
        if self.text is not None and self.class_tokens.numel() and (self._text_is_constant or not self.training):
            shape = (*self.class_tokens.shape[:2], self.text.out_channels)
            self.text_features = torch.randn(shape, device=self.class_tokens.device)

    def _encode(self, which: slice = slice(None)) -> Tensor:
        tokens = self.class_tokens[which]
        shape, tokens = tokens.shape[:2], tokens.flatten(0, 1)
        key = (which.start, tokens.device)
        if key not in self._plans:
            self._plans[key] = self.text.plan(tokens.cpu())
        return self.text(tokens, self._plans[key]).unflatten(0, shape)

    def _prompt_features(self) -> Tensor:
        """Features of the prompts in use, (T, C, D), not normalised."""
        if self.text_features is None and self.class_tokens.numel() == 0:
            raise not_told('TextClsHead', 'the classes', 'give classes=[...] to the head')
        which = slice(None)
        if self.prompt_mode == 'random':
            which = slice(0, 1)
            if self.training:
                draw = np.random.default_rng([self.seed, self._steps.read(self.steps)]).integers(len(self.class_tokens))
                which = slice(draw, draw + 1)
        if self._text_is_constant or not self.training:
            if self.text_features is None:
                # Kept for every later batch, so not in the precision of the first one.
                with torch.no_grad(), torch.autocast(self.class_tokens.device.type, enabled=False):
                    features = self._encode()
                    self.text_features = features.to(torch.promote_types(features.dtype, torch.float32))
            return self.text_features[which]
        return self._encode(which)

    def class_embeddings(self) -> Tensor:
        """Normalised text embedding of every class.

        Returns:
            Tensor: Shape (C, D). With several templates the mean of their
            normalised features, normalised again.
        """
        features = self._prompt_features()
        if self.text_adapter is not None:
            features = self.text_adapter(features)
        features = F.normalize(features.to(torch.promote_types(features.dtype, torch.float32)), dim=-1)
        return features[0] if len(features) == 1 else F.normalize(features.mean(0), dim=-1)

    @torch.no_grad()
    def save_class_embeddings(self, path: str) -> None:
        """Write the class embeddings to a ``.safetensors`` file for a head without text tower."""
        with whole_file(path) as part:
            save_file({'class_embeddings': self.class_embeddings().cpu().contiguous()}, part)

    def train(self, mode: bool = True):
        """Set the mode; features of a text tower in training are forgotten with every change."""
        super().train(mode)
        if not self._text_is_constant:
            self.text_features = None
        return self

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # Prompts travel with a checkpoint: an inferencer knows the classes without a dataset.
        stored = state_dict.get(prefix + 'class_tokens')
        if self.classes is not None:
            state_dict[prefix + 'class_tokens'] = self.class_tokens  # the classes and templates asked for now
        elif stored is not None and stored.shape != self.class_tokens.shape:
            self.class_tokens = torch.zeros_like(stored, device=self.class_tokens.device)
        if self.text is not None:
            self.text_features = None
            self._plans.clear()
        super()._load_from_state_dict(state_dict, prefix, *args)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Normalised image embedding, (N, D), in single precision at least."""
        return F.normalize(feats[-1].to(torch.promote_types(feats[-1].dtype, torch.float32)), dim=-1)

    def forward(self, feats: tuple[Tensor, ...]) -> Tensor:
        """Logits.

        Args:
            feats (tuple[Tensor]): The last is the image embedding, (N, D).

        Returns:
            Tensor: Shape (N, C).
        """
        image = self.pre_logits(feats)
        text = self.class_embeddings()
        if image.shape[-1] != text.shape[-1]:
            raise InputError(
                f'The image features are {image.shape[-1]} wide and the texts {text.shape[-1]}: backbone and text '
                'tower must be of one open_clip model.'
            )
        # In half precision a logit of 20 would be rounded to 0.1: the last product is in single precision at least.
        with torch.autocast(image.device.type, enabled=False):
            dtype = torch.promote_types(torch.promote_types(image.dtype, text.dtype), torch.float32)
            return exact_product(self.logit_scale * image.to(dtype), text.to(dtype))

    def loss(self, feats: tuple[Tensor, ...], data_samples: list, **kwargs) -> dict:
        """See ``ClsHead.loss``."""
        losses = super().loss(feats, data_samples, **kwargs)
        self._steps.advance(self.steps)
        return losses


def _read_embeddings(path: str) -> Tensor:
    try:
        embeddings = load_file(path)['class_embeddings']
    except Exception as e:
        raise InputError(
            f"Class embeddings could not be read from '{path}' ({type(e).__name__}: {e}); write the file with "
            'TextClsHead.save_class_embeddings().'
        ) from e
    return F.normalize(embeddings.float(), dim=-1).unsqueeze(0)
