"""Write docs/recipes.md: every benchmark config's recipe beside the published code's and the paper's.

    python tools/analysis_tools/recipe_sheet.py
    python tools/analysis_tools/recipe_sheet.py --check     exits with 1 where docs/recipes.md differs

What stands under "here" is read from the resolved configs: the optimizer's groups, the rates of the built schedulers,
the modes of the built modules. The other two columns are in docs/recipes.yml.
"""

import argparse
import difflib
import logging
from pathlib import Path

import yaml
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmlt.checkpoints import write_text
from mmlt.utils.recipe import recipe

REPO = Path(__file__).resolve().parents[2]

INTRO = """# Recipes

Made by `python tools/analysis_tools/recipe_sheet.py` from the resolved configs; a test keeps it so. Rates are those at
the beginning of an epoch, the first is 0. "vectors" are biases, norms and embeddings of one dimension. Where configs of
a method differ, the values say which; a tower that is frozen is in eval mode. Published code and paper are cited where
they say something; "-" means that we know nothing of it.
"""


def data_set(name: str, images: dict[str, int]) -> int | None:
    """Training images of the data set that a config's name ends with."""
    found = [key for key in images if f'_{key}_' in f'_{name}_']
    return images[max(found, key=len)] if found else None


def configs(patterns: list[str]) -> dict[str, Path]:
    """Config files by name; those of the tiny models, and of texts where others are meant, left out."""
    paper = any('paper' in pattern for pattern in patterns)
    files = [f for pattern in patterns for f in sorted((REPO / 'configs').glob(pattern))]
    return {f.stem: f for f in files if 'tiny' not in f.stem and ('_paper' in f.stem) == paper}


def cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table."""
    return text.replace('|', '\\|').replace('*', '\\*') or '-'


def here(values: dict[str, str]) -> str:
    """One value for all configs, or each value with those that have it."""
    kinds = list(dict.fromkeys(values.values()))
    if len(kinds) == 1:
        return cell(kinds[0])
    parts = []
    for kind in sorted(kinds, key=lambda k: -sum(v == k for v in values.values())):
        names = [name for name, value in values.items() if value == kind]
        parts.append(f'{cell(kind)} <sub>{", ".join(names)}</sub>')
    return '<br>'.join(parts)


def sheet(entry: dict, images: dict[str, int]) -> list[str]:
    """One section: a title, a line of introduction, a table."""
    files = configs(entry['configs'])
    start = next(iter(files)).split('_')[0]
    recipes = {}
    for name, file in files.items():
        short = name.removeprefix(f'{start}_')
        recipes[short] = recipe(Config.fromfile(file), data_set(name, images))
    settings = list(dict.fromkeys(key for found in recipes.values() for key in found))
    lines = ['', f'## {entry["title"]}', '', entry['intro'], '', f'{len(files)} configs: {", ".join(recipes)}.', '']
    if unknown := [
        key for key in entry['settings'] if key not in settings and entry['settings'][key]['published'] != 'none'
    ]:
        settings += unknown
    lines += ['| | here | published code | paper |', '| :-- | :-- | :-- | :-- |']
    for key in settings:
        told = entry['settings'].get(key, {})
        values = here({name: found.get(key, '-') for name, found in recipes.items()})
        lines.append(f'| {key} | {values} | {cell(told.get("published", "-"))} | {cell(told.get("paper", "-"))} |')
    return lines


def whole_page() -> str:
    """The whole page."""
    facts = yaml.safe_load((REPO / 'docs' / 'recipes.yml').read_text())
    logging.disable(logging.WARNING)
    try:
        with DefaultScope.overwrite_default_scope('mmpretrain'):
            lines = [line for entry in facts['sheets'] for line in sheet(entry, facts['images'])]
    finally:
        logging.disable(logging.NOTSET)
    return INTRO + '\n'.join(lines) + '\n'


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=REPO / 'docs' / 'recipes.md', help='default docs/recipes.md')
    parser.add_argument('--check', action='store_true', help='only compare')
    args = parser.parse_args(argv)
    page = whole_page()
    if not args.check:
        write_text(args.out, page)
        print(f'{args.out}: {len(page.splitlines())} lines')
        return 0
    old = args.out.read_text() if args.out.is_file() else ''
    diff = list(
        difflib.unified_diff(old.splitlines(), page.splitlines(), str(args.out), 'the configs', lineterm='', n=0)
    )
    print('\n'.join(diff) or f'{args.out} is what the configs say.')
    return 1 if diff else 0
