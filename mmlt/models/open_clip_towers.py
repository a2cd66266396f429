"""Loading of open_clip models: one load, two towers."""

from __future__ import annotations

import copy
import difflib
import logging
import os
import weakref
from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from pathlib import Path

import open_clip
import torch
from mmengine.logging import print_log
from open_clip.factory import load_checkpoint as open_clip_load_checkpoint
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed
from torch import nn

from mmlt.checkpoints import check_download, check_hub, is_torchscript, read_torchscript, weights_only
from mmlt.errors import InputError
from mmlt.models.pool_positions import attention_pool, pool_positions_are_resized
from mmlt.models.undrawn import check_filled, undrawn
from mmlt.utils import damage, why_unreadable

open_clip.add_model_config(Path(__file__).parent / 'open_clip_configs')

_SCHEMAS = ('hf-hub:', 'local-dir:')


def _check_names(model: str, pretrained: str | None) -> None:
    if not carries_weights(model) and model not in open_clip.list_models():
        names = {name.lower(): name for name in open_clip.list_models()}
        near = [names[name] for name in difflib.get_close_matches(model.lower(), names, 6)]
        hint = f' Near it: {", ".join(near)}.' if near else ''
        raise InputError(
            f"open_clip has no model '{model}'.{hint} See open_clip.list_models() for all, or register your own "
            'JSON with open_clip.add_model_config().'
        )
    if pretrained is None or is_tag(model, pretrained) or looks_like_path(pretrained):
        return
    raise InputError(
        f"open_clip model '{model}' has no pretrained tag '{pretrained}'. Its tags: "
        f'{", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"}. A local weight file is given by its '
        'path.'
    )


def carries_weights(model: str) -> bool:
    """Whether the model's name brings its weights, as ``hf-hub:`` and ``local-dir:`` do."""
    return model.startswith(_SCHEMAS)


def is_tag(model: str, pretrained: str) -> bool:
    """Whether ``pretrained`` is one of open_clip's tags of this model."""
    return open_clip.is_pretrained_cfg(model, pretrained)


def looks_like_path(pretrained: str) -> bool:
    """Whether ``pretrained`` has the form of a path, or is one."""
    return os.path.sep in pretrained or bool(Path(pretrained).suffix) or os.path.exists(pretrained)


def _model_config(model: str) -> dict:
    folder = Path(model.removeprefix('local-dir:'))
    if model.startswith('local-dir:') and folder.is_dir() and not (folder / 'open_clip_config.json').is_file():
        kind = "a folder in transformers' format" if (folder / 'config.json').is_file() else 'no folder of open_clip'
        raise InputError(
            f"'{folder}' is {kind}: it has no open_clip_config.json. Give a folder that has, as timm/* and laion/* on "
            "the Hugging Face hub, or the model's name in open_clip (ViT-B-16) with the path of an open_clip weight "
            'file as pretrained.'
        )
    try:
        if model.startswith('hf-hub:'):
            check_hub(model.removeprefix('hf-hub:'), ['open_clip_config.json'])
        return open_clip.get_model_config(model) or {}
    except Exception as e:
        hint = ''
        if model.startswith('hf-hub:'):
            hint = (
                " It must have an open_clip_config.json, which repositories in transformers' format (openai/clip-*) "
                "have not; without a network, give model='local-dir:<folder>'."
            )
        raise InputError(
            f"The config of the open_clip model '{model}' could not be read ({type(e).__name__}: {_one_line(e)}).{hint}"
        ) from e


def _wants_quick_gelu(model: str, pretrained: str | None) -> bool | None:
    """Whether weights were trained with QuickGELU, as OpenAI's were; None where the name does not tell."""
    if _model_config(model).get('quick_gelu'):
        return True
    if pretrained is None:
        return None
    if not is_tag(model, pretrained):
        return True if os.path.isfile(pretrained) and is_torchscript(pretrained) else None
    return bool(open_clip.get_pretrained_cfg(model, pretrained).get('quick_gelu', False))


def quick_gelu_tags(model: str) -> list[str]:
    """Those of a model's tags whose weights were trained with QuickGELU while the model's config says GELU."""
    if carries_weights(model) or _model_config(model).get('quick_gelu'):
        return []
    tags = open_clip.list_pretrained_tags_by_model(model)
    return [tag for tag in tags if open_clip.get_pretrained_cfg(model, tag).get('quick_gelu')]


def _quick_gelu_setting(model: str) -> str:
    twin = f'{model}-quickgelu'
    return 'quick_gelu=True on both towers' + (f", or model='{twin}'" if twin in open_clip.list_models() else '')


def _assumption(model: str, pretrained: str | None) -> str | None:
    tags = [] if pretrained is None else quick_gelu_tags(model)
    if not tags:
        return None
    return (
        f"'{pretrained}' does not tell whether '{model}' was trained with QuickGELU: GELU is assumed. If its weights "
        f'are those of {", ".join(tags)}, set {_quick_gelu_setting(model)}; quick_gelu=False confirms GELU.'
    )


def hub_files(cfg: dict) -> tuple[str, list[str]]:
    """Where open_clip looks for a tag's weights on Hugging Face's hub.

    Args:
        cfg (dict): Of ``open_clip.get_pretrained_cfg``.

    Returns:
        tuple[str, list[str]]: The repository, '' where they are not on the
        hub, and names of the file, the first one that it takes first.
    """
    repository, name = os.path.split(cfg.get('hf_hub') or '')
    if not name:
        return repository, ['open_clip_model.safetensors', 'open_clip_pytorch_model.bin']
    stem, ending = os.path.splitext(name)
    return repository, [f'{stem}.safetensors', name] if ending in ('.bin', '.pth') else [name]


def _resolve_file(model: str, pretrained: str) -> str:
    if not is_tag(model, pretrained):
        if os.path.isdir(pretrained):
            raise InputError(
                f"pretrained='{pretrained}' of the open_clip model '{model}' is a folder, no weight file: use "
                f"model='local-dir:{pretrained}' without pretrained, or give the path of the file in it."
            )
        if not os.path.isfile(pretrained):
            raise InputError(
                f"The weight file '{pretrained}' for open_clip model '{model}' does not exist. Give the path of a "
                'file, or one of the tags of open_clip.list_pretrained_tags_by_model().'
            )
        return pretrained
    cfg = open_clip.get_pretrained_cfg(model, pretrained)
    try:
        if cfg.get('hf_hub'):
            check_hub(*hub_files(cfg))
        return check_download(open_clip.download_pretrained(cfg))
    except InputError:
        raise
    except Exception as e:
        setting = ''
        if pretrained in quick_gelu_tags(model):
            setting = f', with {_quick_gelu_setting(model)}, which these weights need and most files do not tell'
        raise InputError(
            f"The weights '{pretrained}' of open_clip model '{model}' could not be fetched ({type(e).__name__}: "
            f'{_one_line(e)}). Without a network, fetch the file elsewhere and give its path as pretrained{setting}.'
        ) from e


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:200]


@contextmanager
def _quiet():
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


class OpenCLIPTowers:
    """One open_clip model whose two towers are handed out once each.

    An ``ImageClassifier`` builds its backbone and its head separately. Both
    name the same open_clip model, and both get their half of one instance
    here, so that the model is built once and its weight file is read once.
    Until :meth:`load`, or a checkpoint, fills them, the weights of a
    pretrained model are NaN; without pretrained weights they are random.

    Args:
        model (str): Name of an open_clip model, ``hf-hub:...`` or
            ``local-dir:...``.
        pretrained (str, optional): An open_clip tag, the path of a local
            weight file, or None for random weights.
        image_size (int, optional): Input size in pixels if it differs from the
            model's own; position embeddings are resized at loading.
        quick_gelu (bool, optional): Force or forbid QuickGELU. None decides by
            the tag or the file. Of files only OpenAI's TorchScript archives
            tell; with others GELU is assumed, with a warning where the model
            has tags that were trained with QuickGELU.
    """

    def __init__(self, model: str, pretrained: str | None, image_size: int | None, quick_gelu: bool | None):
        _check_names(model, pretrained)
        self.model, self.pretrained, self.image_size = model, pretrained, image_size
        self.has_pretrained = pretrained is not None or carries_weights(model)
        wanted = _wants_quick_gelu(model, pretrained)
        # Where neither the caller nor the weights tell the activation: what is assumed, and how to change it.
        self.assumption = _assumption(model, pretrained) if quick_gelu is None and wanted is None else None
        if quick_gelu is None:
            quick_gelu = bool(wanted)
        elif wanted is not None and wanted != quick_gelu:
            what = (
                f"the open_clip model '{model}', which is"
                if pretrained is None
                else (f"the weights '{pretrained}' of '{model}', which were trained")
            )
            raise InputError(
                f'quick_gelu={quick_gelu} contradicts {what} {"with" if wanted else "without"} QuickGELU: set '
                'quick_gelu=None, and the weights decide.'
            )
        try:
            # open_clip warns of random weights; they are read later, so they are not even drawn.
            with _quiet(), undrawn() if self.has_pretrained else nullcontext():
                self.clip = open_clip.create_model(
                    model,
                    load_weights=False,
                    pretrained_text=False,
                    force_quick_gelu=quick_gelu,
                    force_image_size=image_size,
                )
        except Exception as e:
            raise InputError(
                f"The open_clip model '{model}' could not be built ({type(e).__name__}: {_one_line(e)})."
            ) from e
        # Fixed unless somebody says that it is trained: an unused parameter would stall DDP.
        self.clip.logit_scale.requires_grad_(False)
        if getattr(self.clip, 'logit_bias', None) is not None:
            self.clip.logit_bias.requires_grad_(False)
        self.config = _model_config(model)
        self.embed_dim = int(self.config.get('embed_dim') or self.clip.visual.output_dim)
        # (W, D) of a Vision Transformer, None elsewhere; whoever claims the image tower, its values are read in place.
        self.visual_projection = getattr(self.clip.visual, 'proj', None)
        self.quick_gelu = quick_gelu
        self.unclaimed = {'image', 'text'}
        self.loaded = False

    def claim(self, tower: str) -> nn.Module:
        """Hand out a half: the image tower, or the model without its image tower."""
        self.unclaimed.remove(tower)
        return self.clip.visual if tower == 'image' else _without_visual(self.clip)

    def load(self) -> None:
        """Read the pretrained weights into both halves, in place, once.

        Raises:
            InputError: The file is missing, cannot be read, belongs to
                another architecture, or leaves weights without numbers.
        """
        if self.loaded:
            return
        if self.has_pretrained:
            with pool_positions_are_resized(self.clip.visual):
                self._load_file()
            source = self.pretrained or self.model
            what = f"With the weights '{source}', the open_clip model '{self.model}'"
            check_filled(self.clip, what, 'the file lacks them, or is damaged. Fetch it anew, or give another one.')
        self.loaded = True
        self.clip = None  # the towers live on in the modules that claimed them

    def _load_file(self) -> None:
        if self.pretrained is None:
            size = None if attention_pool(self.clip.visual) else self.image_size
            try:
                with undrawn(), weights_only():
                    source = open_clip.create_model(
                        self.model, pretrained_text=False, force_image_size=size, require_pretrained=True
                    )
                self.clip.load_state_dict(source.state_dict())
            except Exception as e:
                raise InputError(
                    f"The weights of the open_clip model '{self.model}' could not be loaded: {why_unreadable(e)}."
                ) from e
            return
        path = _resolve_file(self.model, self.pretrained)
        print_log(f'Loading {self.model} weights from {path}', logger='current')
        if self.assumption is not None:
            print_log(self.assumption, logger='current', level=logging.WARNING)
        try:
            if is_torchscript(path):
                state = {k: v.float() if v.is_floating_point() else v for k, v in read_torchscript(path).items()}
                for key in ('input_resolution', 'context_length', 'vocab_size'):
                    state.pop(key, None)
                if not hasattr(self.clip, 'positional_embedding'):
                    state = convert_to_custom_text_state_dict(state)
                resize_pos_embed(state, self.clip)
                resize_text_pos_embed(state, self.clip)
                self.clip.load_state_dict(state)
            else:
                with weights_only():
                    open_clip_load_checkpoint(self.clip, path)
        except Exception as e:
            raise InputError(_why_not(self.model, path, e)) from e


def _why_not(model: str, path: str, error: Exception) -> str:
    """The sentence for a weight file that could not be loaded into a model."""
    if damage(error, path) is not None:
        return f"The weight file '{path}' of open_clip model '{model}' cannot be read: {why_unreadable(error, path)}."
    text = str(error) or type(error).__name__
    if '"backbone.' in text:
        return (
            f"'{path}' is a checkpoint of a training, no weight file of open_clip: convert it with "
            'mmlt to-open-clip, or load it as a checkpoint of its config (load_from).'
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return (
        f"The weights in '{path}' do not fit the open_clip model '{model}': {' '.join(lines[:2])[:300]} "
        '(give the model name that the weights were trained with).'
    )


_last: weakref.ref | None = None
_last_key: tuple | None = None


def open_clip_tower(
    tower: str,
    model: str,
    pretrained: str | None = None,
    image_size: int | None = None,
    quick_gelu: bool | None = None,
) -> tuple[nn.Module, OpenCLIPTowers]:
    """Get one tower of an open_clip model, with the loader that fills it.

    The other half of the last model that was built is used where it has the
    same name and weights and was not handed out yet.

    Args:
        tower (str): 'image' or 'text'.
        model (str): See :class:`OpenCLIPTowers`; so for the rest.
        pretrained (str, optional): Defaults to None.
        image_size (int, optional): Defaults to None.
        quick_gelu (bool, optional): Defaults to None.

    Returns:
        tuple: The tower, with random weights or none yet, and the
        :class:`OpenCLIPTowers` whose :meth:`~OpenCLIPTowers.load` reads the
        pretrained ones.
    """
    global _last, _last_key
    key = (model, pretrained, quick_gelu)
    towers = _last() if _last is not None else None
    same_size = towers is not None and (
        image_size is None or towers.clip is None or towers.clip.visual.image_size in (image_size, (image_size,) * 2)
    )
    if towers is None or towers.loaded or _last_key != key or tower not in towers.unclaimed or not same_size:
        towers = OpenCLIPTowers(model, pretrained, image_size, quick_gelu)
        _last, _last_key = weakref.ref(towers), key
    return towers.claim(tower), towers


def _without_visual(clip: nn.Module) -> nn.Module:
    """A second view of the model, same parameters, without image tower (and without CoCa's caption decoder)."""
    text = copy.copy(clip)
    text._modules = OrderedDict((k, v) for k, v in clip._modules.items() if k not in ('visual', 'text_decoder'))
    text._parameters = clip._parameters.copy()
    text._buffers = clip._buffers.copy()
    return text


class QuickGELUGuard(nn.Module):
    """Carries in checkpoints whether the tower beside it uses QuickGELU.

    The activation has no weights, so a checkpoint in the wrong model would load without any error and cost accuracy.

    Args:
        quick_gelu (bool): Whether it does.
    """

    def __init__(self, quick_gelu: bool):
        super().__init__()
        self.register_buffer('quick_gelu', torch.tensor(quick_gelu, dtype=torch.uint8))

    def _load_from_state_dict(self, state_dict, prefix, *args):
        stored = state_dict.setdefault(f'{prefix}quick_gelu', self.quick_gelu)
        if bool(stored) != bool(self.quick_gelu):
            used, built = ('QuickGELU', 'GELU') if stored else ('GELU', 'QuickGELU')
            raise InputError(
                f'The checkpoint was trained with {used}, but this config builds the model with {built}: set '
                f'quick_gelu={bool(stored)} on the towers.'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
