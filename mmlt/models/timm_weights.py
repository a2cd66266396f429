"""Vision Transformers of timm: their names, their tags, and weights that are read without running any code."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Callable
from contextlib import nullcontext, suppress
from functools import partial

import timm
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from mmengine.logging import print_log
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict, vision_transformer
from timm.models._hub import check_cached_file, download_cached_file
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from mmlt.checkpoints import check_download, check_hub, in_hub_cache, read_checkpoint
from mmlt.checkpoints.weights import fit_state
from mmlt.errors import InputError
from mmlt.models.undrawn import check_filled, undrawn
from mmlt.utils import why_unreadable

# Files of weights in a repository of timm on the hub, the one that cannot hold code first.
_HUB_FILES = ('model.safetensors', 'pytorch_model.bin')
# Under which name the file of a training holds its weights, in timm's order: averaged ones are those that were tested.
_PARTS = ('state_dict_ema', 'model_ema', 'state_dict', 'model')
# Where timm has its plain Vision Transformers.
_MODULES = ('vision_transformer', 'vision_transformer_hybrid', 'deit', 'eva')
# What a file may have beside the tower: classifiers, a pooling that was left out, tables that are computed.
_BESIDE = ('head.', 'head_dist.', 'fc.', 'attn_pool.', 'rope.', 'mask_token')


def timm_tags(model: str) -> list[str]:
    """The tags of a model's pretrained weights, such as 'lvd142m'."""
    return [name.removeprefix(f'{model}.') for name in timm.list_models(f'{model}.*', pretrained=True)]


def is_timm_tag(model: str, pretrained: str) -> bool:
    """Whether ``pretrained`` is one of timm's tags of this model."""
    return pretrained in timm_tags(model)


def _one_line(error: Exception) -> str:
    return ' '.join(str(error).split())[:200]


def _check_names(model: str, pretrained: str | None) -> None:
    name, _, tag = model.partition('.')
    if tag and timm.is_model(name):
        raise InputError(f"'{model}' is a model and a tag of timm: set model='{name}' and pretrained='{tag}'.")
    if not timm.is_model(model):
        known = sorted({*timm.list_models('*vit*'), *timm.list_models(module='eva')})
        near = difflib.get_close_matches(model.lower(), known, 6)
        hint = f' Near it: {", ".join(near)}.' if near else ''
        raise InputError(f"timm has no model '{model}'.{hint} See timm.list_models('*vit*') for all.")
    if pretrained is None or is_timm_tag(model, pretrained):
        return
    if not (os.path.sep in pretrained or os.path.splitext(pretrained)[1] or os.path.exists(pretrained)):
        raise InputError(
            f"timm's '{model}' has no pretrained tag '{pretrained}'. Its tags: "
            f'{", ".join(timm_tags(model)) or "none"}. A local weight file is given by its path.'
        )


def build_timm_vit(
    model: str, pretrained: str | None, image_size: int | None, dynamic: bool, options: dict
) -> VisionTransformer | Eva:
    """A Vision Transformer of timm without classifier, whose weights are random, or not there yet.

    Args:
        model (str): Its name.
        pretrained (str, optional): A tag or a file; with one no random weights
            are drawn.
        image_size (int, optional): In pixels; None for the model's own.
        dynamic (bool): Whether images of other sizes are taken, too.
        options (dict): More arguments of the model.

    Returns:
        VisionTransformer | Eva: The model.

    Raises:
        InputError: An unknown model or tag; no Vision Transformer; options
            that it does not take.
    """
    _check_names(model, pretrained)
    size: dict = {} if image_size is None else dict(img_size=image_size)
    visual = None
    try:
        with undrawn() if pretrained is not None else nullcontext():
            visual = timm.create_model(model, num_classes=0, dynamic_img_size=dynamic, **size, **options)
    except Exception as e:
        if timm.models.is_model_in_modules(model, _MODULES):
            raise InputError(f"timm's '{model}' could not be built ({type(e).__name__}: {_one_line(e)}).") from e
    if not isinstance(visual, (VisionTransformer, Eva)):
        raise InputError(
            f"timm's '{model}' is no plain Vision Transformer, which mmlt.TimmViT takes: choose one such as "
            'vit_base_patch14_dinov2, or use mmpretrain.TIMMBackbone.'
        )
    return visual


def _downloaded(model: str, tag: str) -> str:
    known = timm.get_pretrained_cfg(f'{model}.{tag}')
    names = (known.hf_hub_filename,) if known.hf_hub_filename else _HUB_FILES
    try:
        if not known.hf_hub_id:
            return download_cached_file(known.url, check_hash=False)  # '-300e.' in a name is no hash, but epochs
        check_hub(known.hf_hub_id, names)
        for name in names[:-1]:
            with suppress(EntryNotFoundError):  # older repositories have the last one only
                return check_download(hf_hub_download(known.hf_hub_id, name))
        return check_download(hf_hub_download(known.hf_hub_id, names[-1]))
    except InputError:
        raise
    except Exception as e:
        where = f'{names[0]} of https://huggingface.co/{known.hf_hub_id}' if known.hf_hub_id else known.url
        raise InputError(
            f"The weights '{tag}' of timm's '{model}' could not be fetched ({type(e).__name__}: {_one_line(e)}). "
            f'Without a network, fetch {where} elsewhere and give its path as pretrained.'
        ) from e


def is_timm_cached(model: str, tag: str) -> bool:
    """Whether a tag's weights were fetched before."""
    known = timm.get_pretrained_cfg(f'{model}.{tag}')
    if not known.hf_hub_id:
        return check_cached_file(known.url, check_hash=False)
    names = (known.hf_hub_filename,) if known.hf_hub_filename else _HUB_FILES
    return in_hub_cache(known.hf_hub_id, names)


def _read(path: str, model: str) -> dict[str, Tensor]:
    if not os.path.isfile(path):
        kind = 'is a folder, no file' if os.path.isdir(path) else 'does not exist'
        raise InputError(
            f"The weight file '{path}' for timm's '{model}' {kind}: give the path of a .safetensors or .pth file, or "
            f'one of the tags {", ".join(timm_tags(model)) or "(there are none)"}.'
        )
    if path.endswith('.npz'):
        raise InputError(f"'{path}' holds arrays of JAX: give the .safetensors that timm has of the same weights.")
    if not path.endswith('.safetensors'):
        return read_checkpoint(path, what='The weight file')
    try:
        return load_file(path)
    except (SafetensorError, OSError) as e:
        raise InputError(f"The weight file '{path}' cannot be read: {why_unreadable(e, path)}.") from e


def _converter(model: str) -> Callable:
    """timm's own function from the names and shapes of a file to those of the model; it resizes positions."""
    module = importlib.import_module(timm.models.model_entrypoint(model).__module__)
    convert = getattr(module, 'checkpoint_filter_fn', vision_transformer.checkpoint_filter_fn)
    if module.__name__.endswith('.deit'):
        return partial(convert, adapt_layer_scale=True)
    if 'flexi' in model:  # as timm, which hands this over inside a builder only
        return partial(convert, interpolation='bilinear', antialias=False)
    return convert


def load_timm_weights(visual: VisionTransformer | Eva, model: str, pretrained: str) -> None:
    """Read pretrained weights into a model, in place; positions of other image sizes are resized by timm.

    Args:
        visual (VisionTransformer | Eva): The model.
        model (str): Its name.
        pretrained (str): A tag, or the path of a file: .safetensors, or of
            ``torch.save``, as timm or the authors of the weights publish it.

    Raises:
        InputError: The file is missing, cannot be read, or belongs to another
            architecture.
    """
    if 'radio' in model:
        raise InputError(f"The weights of '{model}' are laid out in a way of their own, which mmlt does not read.")
    path = _downloaded(model, pretrained) if is_timm_tag(model, pretrained) else pretrained
    print_log(f"Loading timm's {model} weights from {path}", logger='current')
    state = _read(path, model)
    part = next((key for key in _PARTS if isinstance(state.get(key), dict)), None)
    inner: dict = state if part is None else state[part]  # type: ignore[assignment]
    if part in _PARTS[:2]:
        print_log(f"'{path}': taking the averaged weights, '{part}'", logger='current')
    if any(str(key).startswith('backbone.') for key in inner):
        raise InputError(
            f"'{path}' is a checkpoint of a training, no weight file of timm: load it as a checkpoint of its config "
            '(load_from).'
        )
    remedy = 'give the model name that the weights were trained with'
    try:
        state = _converter(model)(clean_state_dict(inner), visual)
    except Exception as e:  # the converters assume names and shapes
        raise InputError(f"'{path}' does not fit timm's '{model}' ({_one_line(e)}): {remedy}.") from e
    if not any(isinstance(value, Tensor) for value in state.values()):
        names = ', '.join(repr(str(key)) for key in list(inner)[:5]) or 'nothing'
        raise InputError(
            f"'{path}' holds no weights but {names}: save the part that has those of timm's '{model}' by their names "
            'as a file of its own.'
        )
    own = visual.state_dict()
    state = {k: v for k, v in state.items() if isinstance(v, Tensor) and (k in own or not k.startswith(_BESIDE))}
    fit_state(own, state).require('all', path, f"timm's '{model}'", remedy)
    visual.load_state_dict(state)
    check_filled(visual, f"With the weights '{pretrained}', timm's '{model}'", 'the file is damaged. Fetch it anew.')


def patch_size(visual: VisionTransformer | Eva) -> tuple[int, int]:
    """Height and width of an image that one token stands for, in pixels."""
    size = visual.patch_embed.feat_ratio(as_scalar=False)
    return (size, size) if isinstance(size, int) else (size[0], size[1])
