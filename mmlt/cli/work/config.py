"""Lists and copies of the configs."""

import os
from argparse import Namespace
from pathlib import Path

from mmlt.checkpoints import write_text
from mmlt.engine.configs import config_names, find_config, full_name, read_config
from mmlt.errors import InputError


def config_list(letters: str = '') -> str:
    """Names with these letters, by their folders."""
    folders: dict[str, list[str]] = {}
    for name, path in config_names().items():
        if letters in name:
            folders.setdefault(path.parent.name, []).append(name)
    return '\n'.join(line for folder, names in folders.items() for line in (f'{folder}:', *(f'  {n}' for n in names)))


def copy(source: str, target: str, overwrite: bool) -> None:
    """Write a config that has another one as its base."""
    file = Path(target)
    if file.suffix != '.py':
        raise InputError(f"'{target}' is no name of a config: give one that ends with .py.")
    if file.exists() and not overwrite:
        raise InputError(f"'{target}' exists: give another name, or --overwrite.")
    base = os.path.relpath(source, file.resolve().parent)
    text = f'_base_ = [{Path(base).as_posix()!r}]\n\n# What is set below replaces what the base says, for example:\n'
    write_text(file, f'{text}# train_cfg = dict(max_epochs=10)\n')
    print(f'{target} builds on {source}. Now: mmlt train {target}')


def show(args: Namespace) -> None:
    """List, print or copy."""
    exact = args.name and (args.name.removesuffix('.py') in config_names() or os.path.isfile(args.name))
    if args.name and not exact and not args.copy and (found := config_list(args.name)):
        print(found)
    elif args.name is None and args.copy:
        raise InputError(f'--copy needs a config to build on: mmlt config NAME --copy {args.copy}.')
    elif args.name is None:
        print(config_list())
    elif args.copy:
        copy(find_config(args.name), args.copy, args.overwrite)
    else:
        cfg = read_config(args.name, args.cfg_options)
        if (name := full_name(cfg)) is not None:
            print(f"# {name}, by MMPretrain's way to name configs: GPUs x pictures of each.")
        print(cfg.pretty_text)
