"""What a training or test needs that may be missing: pictures, lists, class texts, weights."""

from __future__ import annotations

import os
import os.path as osp
from collections.abc import Iterator, Sequence

import open_clip
from mmengine.config import Config
from mmpretrain.registry import DATASETS

from mmlt.checkpoints import in_hub_cache
from mmlt.engine.build_errors import explained
from mmlt.engine.stages import Stage
from mmlt.errors import InputError
from mmlt.models.open_clip_towers import carries_weights, hub_files, is_tag
from mmlt.models.timm_weights import is_timm_cached, is_timm_tag
from mmlt.preparation.checks import Contents, Download, check_contents, compare_statistics
from mmlt.preparation.file_checks import check_files


def data_options(stages: Sequence[Stage], root: str) -> list[str]:
    """The options that move the data of all stages.

    Args:
        stages (Sequence[Stage]): Of :func:`mmlt.engine.stages.plan`.
        root (str): The folder.

    Returns:
        list[str]: ``key=value`` as for ``--cfg-options``.

    Raises:
        InputError: The data set does not lie in a folder.
    """
    own = data_root(stages[-1].cfg)
    if own is None:
        raise InputError(
            f"The data of '{stages[-1].name}' come with a package, or are named in the config: leave out --data."
        )
    options = []
    for stage in stages:
        prefix = '' if stage is stages[-1] else f'stages.{stage.name}.options.'
        for part in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            dataset = (stage.cfg.get(part) or {}).get('dataset')
            if dataset is not None and dataset.get('data_root') == own:
                options.append(f'{prefix}{part}.dataset.data_root={root}')
    return options


def draw_options(stages: Sequence[Stage], kind: str, seed: int) -> list[str]:
    """The options that give all stages another draw of an embedded data set's splits.

    Args:
        stages (Sequence[Stage]): Of :func:`mmlt.engine.stages.plan`.
        kind (str): The data set, for example 'mmlt.TwemojiLT'.
        seed (int): Its ``selection_seed``.

    Returns:
        list[str]: ``key=value`` as for ``--cfg-options``, for every dict of
        that type outside of lists; none for stages that other trainings share.
    """

    def walk(value: dict, path: str) -> Iterator[str]:
        if value.get('type') == kind:
            yield f'{path}selection_seed={seed}'
        for key, part in value.items():
            if isinstance(part, dict) and key != 'stages':
                yield from walk(part, f'{path}{key}.')

    prefixes = [(stage, f'{stage.key}.options.' if stage.key else '') for stage in stages if not stage.shared]
    return [option for stage, prefix in prefixes for option in walk(stage.cfg._cfg_dict, prefix)]


def data_root(cfg: Config) -> str | None:
    """The folder of a config's test data, None where they come with a package."""
    return (cfg.test_dataloader.dataset.get('data_root') if cfg.get('test_dataloader') else None) or None


def data_problems(cfg: Config, download: Download | None, training: bool) -> list[str]:
    """What is wrong with a config's data.

    Args:
        cfg (Config): Of the last stage.
        download (Download, optional): What it has to be; None for a data set
            that is not a downloaded data set, or not one that is known.
        training (bool): Whether training images and class texts are needed,
            too.

    Returns:
        list[str]: Problems, a sentence each.
    """
    try:
        if download is None:
            for part in ('train_dataloader', 'test_dataloader') if training else ('test_dataloader',):
                if cfg.get(part):
                    with explained(cfg):
                        DATASETS.build(cfg[part].dataset)
            problems = []
        else:
            problems = _download_problems(download, data_root(cfg), training)
    except (InputError, FileNotFoundError) as e:
        problems = [str(e)]
    return problems + (_text_problems(cfg) if training else [])


def _download_problems(download: Download, root: str, training: bool) -> list[str]:
    if not osp.isdir(root):
        return [
            f"The folder '{root}' does not exist: give the one that holds {download.title} by --data; "
            'docs/datasets.md says what belongs in it.'
        ]
    if training:
        contents = check_contents(download, root)
    else:  # a test takes the counts of the training list, but none of its pictures
        contents = Contents()
        download.read(download, root, contents)
        compare_statistics(download, contents)
        if (split := list(download.images)[-1]) in contents.splits:
            files, what = contents.splits[split][0], f'{download.title}, {split}'
            contents.problems += check_files(contents.folders[split], files, what)
    no_folder = not any(entry.is_dir() for entry in os.scandir(root))
    if no_folder and len(download.images) > 1:
        contents.problems.append(f"{download.title}: there is no folder of pictures in '{root}'.")
    return contents.problems


def _text_problems(cfg: Config) -> list[str]:
    dataset = (cfg.get('train_dataloader') or {}).get('dataset') or {}
    texts, root = dataset.get('class_texts'), dataset.get('data_root') or ''
    if not isinstance(texts, str) or any(osp.exists(path) for path in (osp.join(root, texts), texts)):
        return []
    return [
        f"The class texts '{osp.join(root, texts)}' do not exist: configs/vlltr/README.md says what lies there, and "
        'how to train on prompts alone.'
    ]


def missing_files(cfg: Config) -> list[str]:
    """Files of weights that a config names by their paths and that do not exist.

    Args:
        cfg (Config): Of a stage. What comes from an earlier stage
            (``{stage:...}``) and what is fetched from elsewhere is left out.

    Returns:
        list[str]: A sentence each.
    """
    named = {f'load_from={cfg.get("load_from")}': cfg.get('load_from')}
    for part in dicts(cfg.model):
        if part.get('type') == 'Pretrained':
            named[f'init_cfg.checkpoint={part.get("checkpoint")}'] = part.get('checkpoint')
        model, weights = part.get('model'), part.get('pretrained')
        if isinstance(model, str) and isinstance(weights, str) and not carries_weights(model):
            known = is_timm_tag if _of_timm(part) else is_tag
            named[f'pretrained={weights}'] = None if known(model, weights) else weights
    return [
        f'The weight file of {what} does not exist: give the path of one that does.'
        for what, path in named.items()
        if isinstance(path, str) and '://' not in path and '{stage:' not in path and not osp.isfile(path)
    ]


def missing_weights(stages: Sequence[Stage]) -> list[str]:
    """Pretrained weights that are not on this machine.

    Args:
        stages (Sequence[Stage]): Of :func:`mmlt.engine.stages.plan`.

    Returns:
        list[str]: A sentence each.
    """
    wanted = {}
    for stage in stages:
        for part in dicts(stage.cfg.model):
            model, pretrained = part.get('model'), part.get('pretrained')
            if isinstance(model, str) and isinstance(pretrained, str) and not carries_weights(model):
                wanted[model, pretrained] = (is_timm_tag, is_timm_cached) if _of_timm(part) else (is_tag, is_cached)
    missing = []
    for (model, pretrained), (known, cached) in wanted.items():
        if known(model, pretrained):
            if not cached(model, pretrained):
                missing.append(
                    f"The weights '{pretrained}' of {model} are not on this machine: they are fetched when they are "
                    'first used; without a network give a file, see docs/deploy.md.'
                )
        elif '{stage:' not in pretrained and not osp.isfile(pretrained):
            missing.append(f"The weight file '{pretrained}' of {model} does not exist.")
    return missing


def _of_timm(part: dict) -> bool:
    return str(part.get('type')).rpartition('.')[2] == 'TimmViT'


def is_cached(model: str, tag: str) -> bool:
    """Whether open_clip has fetched a tag's weights before."""
    known = open_clip.get_pretrained_cfg(model, tag)
    url = known.get('url') or ''
    if url and osp.isfile(osp.expanduser(f'~/.cache/clip/{osp.basename(url)}')):
        return True
    repository, names = hub_files(known)
    return bool(repository) and in_hub_cache(repository, names)


def dicts(value) -> Iterator[dict]:
    """A config's dict and all dicts in it."""
    if isinstance(value, dict):
        yield value
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    for part in parts:
        yield from dicts(part)
