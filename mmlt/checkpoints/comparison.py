"""Checkpoints: what they say of the training, and comparison of the configs that made them."""

from __future__ import annotations

from mmengine.config import Config

from mmlt.utils.renamed import by_new_names


def checkpoint_classes(checkpoint: dict) -> list[str] | None:
    """Class names that a checkpoint was trained on, None where it does not tell.

    Args:
        checkpoint (dict): As ``torch.load`` gives it.
    """
    meta = checkpoint.get('meta')
    classes = ((meta.get('dataset_meta') if isinstance(meta, dict) else None) or {}).get('classes')
    return None if not classes else [str(c) for c in classes]


def plain(value):
    """Turn a config into plain dicts, lists and scalars (tuples become lists), arguments by their names of now."""
    if isinstance(value, Config):
        value = value._cfg_dict
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in by_new_names(value).items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    return repr(value)


def first_difference(old, new, path: str = '') -> str | None:
    """Name the first place where two configs differ.

    Args:
        old (Any): What was, as made by :func:`plain`.
        new (Any): What is asked for now.
        path (str): Prefix of the name. Defaults to ''.

    Returns:
        str | None: For example ``'model.neck.residual_ratio was 0.2 and is now 0.5'``;
        None where nothing differs.
    """
    if isinstance(old, dict) and isinstance(new, dict):
        for key in list(old) + [k for k in new if k not in old]:
            name = f'{path}.{key}' if path else key
            if key not in old:
                return f'{name} was not set and is now {new[key]!r}'
            if key not in new:
                return f'{name} was {old[key]!r} and is now not set'
            if (found := first_difference(old[key], new[key], name)) is not None:
                return found
        return None
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for i, (a, b) in enumerate(zip(old, new)):
            if (found := first_difference(a, b, f'{path}.{i}')) is not None:
                return found
        return None
    return None if old == new else f'{path} was {old!r} and is now {new!r}'
