"""Class texts: for every class, prompts and what is written about it."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from mmengine.logging import print_log

from mmlt.datasets.texts.files import TABLE_SUFFIXES, read_table
from mmlt.errors import InputError
from mmlt.registry import DATASETS
from mmlt.utils import texts_fingerprint
from mmlt.utils.prompts import class_prompts
from mmlt.utils.text_files import read_json, read_text

# Corpora that come with the package, by name.
NAMED_CORPORA = {'mnist-lt': Path(__file__).parent / 'corpora' / 'mnist-lt'}

# Sections of an encyclopaedia's article that describe nothing (VL-LTR, section 4.1).
DROPPED_SECTIONS = ('external links', 'references', 'further reading', 'bibliography')

_HEADING = re.compile(r'^\s*(=+)\s*(.+?)\s*\1\s*$')
# What a full stop follows without ending a sentence: initials, and these.
_ABBREVIATION = re.compile(
    r'(?:[A-Z]\.)*[A-Z]|(?i:c|e\.g|i\.e|cf|vs|etc|approx|ca|dr|mr|mrs|ms|st|mt|no|vol|pp|fig|ed|eds|gen|spp?|var|subsp|'
    r'syn|al|inc|ltd|co|jr|sr|prof|rev|est|u\.s|u\.k)'
)
_BOUNDARY = re.compile(r'[.!?]["\')\]]*\s+(?=["\'(\[]*[A-Z0-9])')


def split_sentences(paragraph: str) -> list[str]:
    """Split a paragraph at full stops, question and exclamation marks.

    A stop after an initial ("J. Smith") or a common abbreviation ("e.g.")
    does not end a sentence.

    Args:
        paragraph (str): Plain text.

    Returns:
        list[str]: Sentences without surrounding space.
    """
    sentences, start = [], 0
    for match in _BOUNDARY.finditer(paragraph):
        word = (paragraph[start : match.start()].rsplit(None, 1) or [''])[-1].lstrip('("\'[')
        if paragraph[match.start()] == '.' and _ABBREVIATION.fullmatch(word):
            continue
        sentences.append(paragraph[start : match.end()].strip())
        start = match.end()
    sentences.append(paragraph[start:].strip())
    return [s for s in sentences if s]


def parse_article(text: str, drop_sections: Sequence[str] = DROPPED_SECTIONS) -> list[str]:
    """Sentences of an article with ``== Section ==`` headings.

    Args:
        text (str): The article. A dropped section ends at the next heading of
            the same or a higher level.
        drop_sections (Sequence[str]): Headings of sections to leave out, in
            any case. Defaults to ``DROPPED_SECTIONS``.

    Returns:
        list[str]: In the order of the article, without headings.
    """
    dropped = {s.lower() for s in drop_sections}
    sentences, dropped_level = [], None
    # A line that begins in lower case goes on with a sentence that was wrapped.
    text = re.sub(r'(?<=[^\s=.!?])[ \t]*\r?\n[ \t]*(?=[a-z])', ' ', text)
    for line in text.splitlines():
        if heading := _HEADING.match(line):
            level = len(heading[1])
            if dropped_level is None or level <= dropped_level:
                dropped_level = level if heading[2].lower() in dropped else None
        elif dropped_level is None:
            sentences += split_sentences(' '.join(line.split()))
    return sentences


@DATASETS.register_module()
class ClassTexts:
    """Sentences of every class: prompts first, then its texts (VL-LTR, section 4.1).

    Where the texts are comes from the dataset (``metainfo['class_texts']``) or
    from ``path``:

    - a folder of ``desc_<class index>.txt`` (VL-LTR's published corpora; also
      in a folder ``wiki`` below it) or of ``<class name>.txt``, articles with
      ``== Section ==`` headings, UTF-8 or GBK;
    - a ``.json`` file, ``{class name: text or list of sentences}``;
    - a ``.csv`` or ``.tsv`` file with the columns ``class`` and ``text``;
    - a name: ``'mnist-lt'``, the corpus that comes with mmlt;
    - or the sentences themselves, a sequence a class.

    Without any, the prompts alone are the class's texts.

    Args:
        path (str | Sequence[Sequence[str]], optional): Where the texts are.
            Defaults to None, what the dataset says.
        templates (str | Sequence[str], optional): Prompts that stand first,
            see :func:`get_templates`; None for no prompts. Defaults to
            'imagenet', CLIP's 80 as in the paper.
        max_sentences (int, optional): At most so many a class, the first ones.
            Defaults to None, all.
        min_words (int): Shorter sentences of a text are left out.
            Defaults to 3.
        drop_sections (Sequence[str]): Sections of articles to leave out.
            Defaults to External links, References, Further reading and
            Bibliography.
    """

    def __init__(
        self,
        path: str | Sequence[Sequence[str]] | None = None,
        templates: str | Sequence[str] | None = 'imagenet',
        max_sentences: int | None = None,
        min_words: int = 3,
        drop_sections: Sequence[str] = DROPPED_SECTIONS,
    ):
        if max_sentences is not None and max_sentences < 1:
            raise InputError(f'ClassTexts: max_sentences is {max_sentences}; give at least 1, or None for all.')
        self.path, self.templates, self.max_sentences = path, templates, max_sentences
        self.min_words = min_words
        self.files: str | None = None  # files_fingerprint() of what was read last
        self.drop_sections = (drop_sections,) if isinstance(drop_sections, str) else tuple(drop_sections)

    def read(self, classes: Sequence[str], source: str | Sequence[Sequence[str]] | None = None) -> list[list[str]]:
        """Collect the sentences of every class.

        Args:
            classes (Sequence[str]): C class names.
            source (str | Sequence[Sequence[str]], optional): What the dataset
                says, used where ``path`` is None. Defaults to None.

        Returns:
            list[list[str]]: C lists of sentences, none empty, without repeats.

        Raises:
            InputError: The texts cannot be found or read; a class has none,
                and no prompts; no class has any.
        """
        path = self._place(source)
        self.files = self.files_fingerprint(source)
        texts, short = self._texts(path, classes) if path is not None else ([[] for _ in classes], [])
        prompts: list[list[str]] = [[] for _ in classes]
        if self.templates is not None:
            prompts = [list(p) for p in zip(*class_prompts(classes, self.templates))]
        bare = [name for name, own in zip(classes, texts) if not own]
        what = _without_text(bare, short, len(classes), path, self.min_words)
        if bare and self.templates is None:
            raise InputError(f'{what}. Write at least one sentence for each, or give prompt templates.')
        if isinstance(path, str) and len(bare) == len(classes):
            raise InputError(f'{what}. Write at least one sentence for some, or leave the texts out.')
        if bare and path is not None:
            print_log(f'{what}: prompts alone stand for them.', logger='current', level=30)
        merged = [list(dict.fromkeys([*p, *t])) for p, t in zip(prompts, texts)]
        return [s[: self.max_sentences] for s in merged]

    def fingerprint(self, classes: Sequence[str], source: str | Sequence[Sequence[str]] | None = None) -> str:
        """A short name of what :meth:`read` gives, which another sentence anywhere would change.

        Args:
            classes (Sequence[str]): See :meth:`read`.
            source (str | Sequence[Sequence[str]], optional): See :meth:`read`.
                Defaults to None.

        Returns:
            str: Hexadecimal digits.
        """
        return texts_fingerprint(self.read(classes, source))

    def files_fingerprint(self, source: str | Sequence[Sequence[str]] | None = None) -> str | None:
        """A short name of the files that :meth:`read` takes, by their names, sizes and times; none is opened.

        Args:
            source (str | Sequence[Sequence[str]], optional): See :meth:`read`.
                Defaults to None.

        Returns:
            str | None: Hexadecimal digits; None of texts that lie in no file.
        """
        path = self._place(source)
        if not isinstance(path, str):
            return None
        folder = Path(NAMED_CORPORA.get(path, path))
        files = [folder, *folder.glob('*.txt'), *folder.glob('wiki/*.txt')]
        states = [(f.relative_to(folder).as_posix(), f.stat()) for f in sorted(files) if f.is_file()]
        lines = [f'{name} {state.st_size} {state.st_mtime_ns}' for name, state in states]
        return texts_fingerprint([lines]) if lines else None

    def _place(self, source):
        path = source if self.path is None else self.path
        return os.fspath(path) if isinstance(path, os.PathLike) else path

    def _texts(self, path, classes: Sequence[str]) -> tuple[list[list[str]], list[str]]:
        """Sentences of every class, and the classes whose sentences are all too short."""
        if not isinstance(path, str):
            if len(path) != len(classes):
                raise InputError(f'There are texts of {len(path)} classes, but {len(classes)} classes.')
            return [self._long(self._sentences([own])) if isinstance(own, str) else list(own) for own in path], []
        folder = Path(NAMED_CORPORA.get(path, path))
        if not folder.exists():
            raise InputError(
                f"The class texts '{path}' do not exist: give a folder, a .json or .csv file, or leave them out "
                '(class_texts=None) to train on prompts alone.'
            )
        if folder.is_dir():
            raw = self._read_folder(folder, classes)
        elif folder.suffix.lower() == '.json':
            raw = _by_class(_read_json(folder), classes, folder)
        elif folder.suffix.lower() in TABLE_SUFFIXES:
            raw = _by_class(_read_csv(folder), classes, folder)
        else:
            raise InputError(f"The class texts '{path}' are neither a folder nor a .json, .csv or .tsv file.")
        whole = [self._sentences(texts) for texts in raw]
        texts = [self._long(own) for own in whole]
        return texts, [name for name, own, kept in zip(classes, whole, texts) if own and not kept]

    def _read_folder(self, folder: Path, classes: Sequence[str]) -> list[list[str]]:
        for place in (folder, folder / 'wiki'):
            if any(place.glob('desc_*.txt')):
                files = [place / f'desc_{i}.txt' for i in range(len(classes))]
                if more := [f for f in place.glob('desc_*.txt') if f not in files]:
                    raise InputError(
                        f"'{more[0]}' is the text of no class: there are {len(classes)}, and the files are numbered "
                        'by their labels from 0.'
                    )
                break
        else:
            own = {f.stem: [f] for f in sorted(folder.glob('*.txt')) if not f.name.startswith('.')}
            if not {_plain(stem) for stem in own} & {_plain(name) for name in classes}:
                raise InputError(
                    f"'{folder}' has no texts of these classes: name its files desc_<class index>.txt or "
                    f"<class name>.txt, for example '{classes[0]}.txt'."
                )
            return [[read_text(str(f), strict=False) for f in files] for files in _by_class(own, classes, folder)]
        return [[read_text(str(f), strict=False)] if f.exists() else [] for f in files]

    def _sentences(self, texts: list[str]) -> list[str]:
        return [s for text in texts for s in parse_article(text, self.drop_sections)]

    def _long(self, sentences: list[str]) -> list[str]:
        return [s for s in sentences if len(s.split()) >= self.min_words]


def _plain(name: str) -> str:
    # NFC: macOS writes an accented letter of a file name as two characters.
    return ' '.join(unicodedata.normalize('NFC', name).lower().replace('_', ' ').split())


def _without_text(bare: Sequence[str], short: Sequence[str], num_classes: int, path, min_words: int) -> str:
    """Which classes are without text, and which of them have one that is too short."""
    where = f" in '{path}'" if isinstance(path, str) else ''
    none = [name for name in bare if name not in short]
    parts = [f'{len(none)} of {num_classes} classes have no text{where}: {_quoted(none)}'] if none else []
    if short:
        parts.append(
            f'{len(short)} of {num_classes} classes have texts{where} that are too short, without a sentence of '
            f'min_words={min_words} words: {_quoted(short)}'
        )
    return '; '.join(parts)


def _quoted(names: Sequence[str]) -> str:
    return ', '.join(f"'{n}'" for n in names[:5]) + (', ...' if len(names) > 5 else '')


def _read_json(path: Path) -> dict[str, list[str]]:
    table = read_json(str(path))
    texts = {}
    for name, value in table.items() if isinstance(table, dict) else [(None, None)]:
        value = [value] if isinstance(value, str) else value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise InputError(f"'{path}' must be {{class name: text, or list of sentences}}; class {name!r} is not.")
        texts[name] = value
    return texts


def _read_csv(path: Path) -> dict[str, list[str]]:
    texts: dict[str, list[str]] = {}
    for where, row in read_table(str(path), ('class', 'text')).select('class', 'text'):
        if not row['text']:
            raise InputError(f"{where}: class '{row['class']}' has an empty text.")
        texts.setdefault(row['class'], []).append(row['text'])
    return texts


def _by_class(texts: dict[str, list], classes: Sequence[str], path: Path) -> list[list]:
    """Texts, or files of such, in the order of classes; an empty list where there is none."""
    known = {_plain(name): value for name, value in texts.items()}
    if len(known) < len(texts):
        raise InputError(f"'{path}' has a class twice, with names that differ in case or spaces alone: join them.")
    if unknown := [name for name in texts if _plain(name) not in {_plain(c) for c in classes}]:
        raise InputError(
            f"'{path}' has texts of '{unknown[0]}', which is none of the {len(classes)} classes: rename it as in the "
            'class list, or remove it.'
        )
    return [known.get(_plain(name), []) for name in classes]
