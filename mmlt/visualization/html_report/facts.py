"""What the folder of a run tells beside its figures: config, recipe, versions, anchor sentences."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmlt.checkpoints import read_config_text
from mmlt.models.anchors import Anchors
from mmlt.utils.recipe import recipe


def one_line(error: Exception) -> str:
    """What an error says, short and in one line."""
    return ' '.join(str(error.args[0] if error.args else error).split())[:160]


def where_it_is(path: str, folder: Path) -> Path:
    """A file that a run names, which may begin at the folder that the run was started in.

    Args:
        path (str): As the run has it.
        folder (Path): The run's.

    Returns:
        Path: The file; ``path`` itself where there is none.
    """
    places = [Path(path), *(parent / path for parent in folder.resolve().parents)]
    return next((place for place in places if place.is_file()), Path(path))


def run_config(folder: Path) -> Config | None:
    """The resolved config of the newest start in a work directory; it is read as data, not run.

    Args:
        folder (Path): With ``<time>/vis_data/config.py``, as MMEngine's
            visualizer writes it.

    Returns:
        Config | None: None where there is none.

    Raises:
        InputError: It is more than values.
    """
    files = sorted(folder.glob('*/vis_data/config.py'))
    return read_config_text(files[-1].read_text(encoding='utf-8'), f"'{files[-1]}'") if files else None


def recipe_of(cfg: Config, images: int) -> tuple[dict[str, str], str | None]:
    """The recipe of a run.

    Args:
        cfg (Config): The run's.
        images (int): Training images.

    Returns:
        tuple: Settings and values, see :func:`mmlt.utils.recipe.recipe`; and
        what is wrong, for then there are only those that stand in the config.
    """
    if not cfg.get('optim_wrapper'):
        return _main_facts(cfg), None  # nothing is trained, as in a zero-shot test
    try:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            return recipe(cfg, images), None
    except Exception as e:  # of a foreign config anything may be missing or unknown
        return _main_facts(cfg), f'The recipe is told in part only ({type(e).__name__}: {one_line(e)}).'


def _main_facts(cfg: Config) -> dict[str, str]:
    model = cfg.get('model') or {}
    found = {'model': model.get('type')}
    for name in ('backbone', 'neck', 'head'):
        part = model.get(name) or {}
        found[name] = ', '.join(str(part[key]) for key in ('type', 'model') if part.get(key)) or None
    found['epochs'] = (cfg.get('train_cfg') or {}).get('max_epochs')
    return {name: str(value) for name, value in found.items() if value is not None}


def logged_versions(folder: Path) -> dict[str, str]:
    """Versions and devices, as the newest log of a work directory has them.

    Args:
        folder (Path): With ``<time>/<time>.log``.

    Returns:
        dict[str, str]: By name; empty where no log tells.
    """
    for file in sorted(folder.glob('*/*.log'), reverse=True):
        with open(file, encoding='utf-8', errors='replace') as lines:
            found: dict[str, str] = {}
            for line in lines:
                if 'System environment:' in line:
                    found = {'': ''}  # it begins
                elif found and (match := re.fullmatch(r'    ([^:]+): (.*)\n?', line)):
                    found[match[1]] = match[2]
                elif found:
                    break
        found.pop('', None)
        if found:
            return found
    return {}


def anchor_file(cfg: Config) -> str | None:
    """The anchor sentences of a model that decides by them, None of another one."""
    return next((d['anchors'] for d in _dicts(cfg.get('model')) if isinstance(d.get('anchors'), str)), None)


def best_sentences(path: Path, classes: list[str], chosen: list[int], number: int = 3) -> dict[int, list]:
    """Anchor sentences with the lowest scores, which are the most telling ones.

    Args:
        path (Path): See :meth:`Anchors.load`.
        classes (list[str]): C names of the run's classes.
        chosen (list[int]): Of which classes.
        number (int): Sentences of each. Defaults to 3.

    Returns:
        dict[int, list]: Sentences and scores of every class; a score is None
        where the sentence has none.

    Raises:
        InputError: There is no such file.
        LookupError: It is of other classes.
    """
    anchors = Anchors.load(str(path))
    names = [str(name) for name in anchors.facts.get('classes', classes)]
    if names != classes or len(anchors.sentences) != len(classes):
        raise LookupError('they are of other classes')
    found = {}
    for c in chosen:
        scored = [(None if s != s else s, text) for s, text in zip(anchors.scores[c].tolist(), anchors.sentences[c])]
        scored.sort(key=lambda pair: (pair[0] is None, pair[0] or 0))
        found[c] = [(text, score) for score, text in scored[:number]]
    return found


def _dicts(part) -> Iterator[dict]:
    if isinstance(part, dict):
        yield part
        part = list(part.values())
    if isinstance(part, (list, tuple)):
        for value in part:
            yield from _dicts(value)
