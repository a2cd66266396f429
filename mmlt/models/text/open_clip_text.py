"""Text towers of open_clip."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import open_clip
import torch
from mmengine.model import BaseModule
from open_clip import CLIP, CoCa, CustomTextCLIP
from torch import Tensor

from mmlt.models.compiled import compile_function, compile_options, is_due
from mmlt.models.open_clip_towers import QuickGELUGuard, open_clip_tower
from mmlt.models.text.functional import TextPlan, can_shorten, encode_text, plan_texts, run_block
from mmlt.models.undrawn import FilledOnce
from mmlt.registry import MODELS
from mmlt.utils import to_device

_MAX_KNOWN = 50_000  # token rows that are kept


def bounded_scale(log_scale: Tensor, largest: float = 100.0) -> Tensor:
    """``exp(log_scale)``, at most ``largest`` as in CLIP.

    One that is learned is itself clamped, as in open_clip, before it is used:
    it keeps its gradient at the bound, where OpenAI's models begin, and can
    leave it.

    Args:
        log_scale (Tensor): A scalar.
        largest (float): Defaults to 100.

    Returns:
        Tensor: The logit scale, a scalar.
    """
    if not (log_scale.requires_grad and torch.is_grad_enabled()):  # nothing that is only looked at is changed
        return log_scale.exp().clamp(max=largest)
    with torch.no_grad():
        log_scale.clamp_(max=math.log(largest))
    return log_scale.exp()


@functools.lru_cache(maxsize=4)
def _tokenizer(model: str, config: str) -> Callable:
    """The tokenizer of a model and its config, which student, teacher and a try of their steps share."""
    return open_clip.get_tokenizer(model)


@MODELS.register_module()
class OpenCLIPText(BaseModule):
    """The text tower and tokenizer of any open_clip model.

    Args:
        model (str): Name of an open_clip model.
        pretrained (str, optional): Tag, local weight file, or None for random
            weights. Defaults to None.
        frozen (bool): No gradients, always in eval mode. Defaults to False.
        grad_checkpointing (bool): Recompute activations in the backward pass.
            Defaults to False.
        shorten (bool): Skip the computation on padding, where that is exact
            (:func:`can_shorten`) and as far as it pays on the device
            (:func:`plan_texts`); other towers run in full. Defaults to True.
        quick_gelu (bool, optional): See :class:`OpenCLIPVision`.
            Defaults to None.
        compile (bool | str | dict): See :class:`OpenCLIPVision`; of towers
            that run in full nothing is compiled. Defaults to False.
        init_cfg (dict, optional): Defaults to None.

    Raises:
        InputError: No such model or tag; missing or unfit weight file.
    """

    clip: CLIP | CustomTextCLIP | CoCa

    def __init__(
        self,
        model: str,
        pretrained: str | None = None,
        frozen: bool = False,
        grad_checkpointing: bool = False,
        shorten: bool = True,
        quick_gelu: bool | None = None,
        compile: bool | str | dict = False,
        init_cfg: dict | None = None,
    ):
        super().__init__(init_cfg)
        self.clip, self._towers = open_clip_tower('text', model, pretrained, quick_gelu=quick_gelu)
        self.model_name = model
        self.out_channels = self._towers.embed_dim
        self.activation = QuickGELUGuard(self._towers.quick_gelu)
        self.tokenizer = _tokenizer(model, repr(self._towers.config))
        self.shorten = shorten and can_shorten(self.clip)
        self.frozen = frozen
        if grad_checkpointing:
            transformer = getattr(getattr(self.clip, 'text', self.clip), 'transformer', None)
            transformer.grad_checkpointing = True
        if frozen:
            self.requires_grad_(False)
        self.train(self.training)
        self._compile_when, self._compile = compile, compile_options(compile)
        self._blocks: dict[torch.device, Callable] = {}  # how a block is run there
        self._known_tokens: dict[str, Tensor] = {}
        self._filled = FilledOnce(f"The text tower '{model}'")

    @property
    def logit_scale(self) -> Tensor:
        """The model's own logit scale, 1 / temperature, a scalar."""
        return bounded_scale(self.clip.logit_scale)

    @property
    def visual_projection(self) -> Tensor | None:
        """The projection of the model's image tower, (W, D); None where it is no matrix of its own."""
        return self._towers.visual_projection

    def init_weights(self) -> None:
        """Read the pretrained weights; called once by MMEngine before training."""
        self._towers.load()
        if self.init_cfg is not None:
            super().init_weights()
        self._is_init = True

    def check_filled(self) -> None:
        """Refuse, once, a tower whose pretrained weights nobody has read."""
        self._filled(self.clip)

    def train(self, mode: bool = True):
        """Set the mode; a frozen tower stays in eval mode."""
        super().train(mode)
        if self.frozen:
            self.clip.eval()
        return self

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Turn texts into token ids, each text only once in a run.

        Args:
            texts (Sequence[str]): N texts.

        Returns:
            Tensor: Token ids of shape (N, context length), on the CPU.
        """
        if len(self._known_tokens) > _MAX_KNOWN:  # prompts come again and again, captions may be millions
            self._known_tokens.clear()
        new = [t for t in dict.fromkeys(texts) if t not in self._known_tokens]
        if new:
            self._known_tokens.update(zip(new, self.tokenizer(new)))
        return torch.stack([self._known_tokens[t] for t in texts])

    def plan(self, tokens: Tensor) -> TextPlan | None:
        """How these texts are best run on the tower's device, for :meth:`forward`.

        Args:
            tokens (Tensor): Token ids on the CPU, (N, L).

        Returns:
            TextPlan | None: On the tower's device; None where it runs texts in
            full.
        """
        if not self.shorten:
            return None
        return plan_texts(self.clip, tokens, self._device).to(self._device)

    @property
    def _device(self) -> torch.device:
        return self.clip.logit_scale.device

    def _block(self, device: torch.device) -> Callable:
        if device not in self._blocks:
            due = self._compile is not None and is_due(self._compile_when, device)
            compiled = compile_function(run_block, self._compile, device, 'The text tower') if due else run_block
            self._blocks[device] = compiled
        return self._blocks[device]

    def forward(self, tokens: Tensor, plan: TextPlan | None = None) -> Tensor:
        """Encode token ids.

        Args:
            tokens (Tensor): Shape (N, L). On the CPU they are planned and
                moved here, without waiting for a GPU.
            plan (TextPlan, optional): Of these tokens where they are on a GPU,
                see :meth:`plan`; without one they are run in full length.
                Defaults to None.

        Returns:
            Tensor: Embeddings of shape (N, D), not normalised.
        """
        self.check_filled()
        device = self._device
        if self.shorten and tokens.device.type == 'cpu':
            plan = self.plan(tokens) if plan is None else plan
            tokens = tokens[:, : plan.length]
        tokens = to_device(tokens, device).long()
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            if self.shorten:
                return encode_text(self.clip, tokens, plan, self._block(device))
            return self.clip.encode_text(tokens, normalize=False)
