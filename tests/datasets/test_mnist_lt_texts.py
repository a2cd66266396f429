"""The class texts of MNIST-LT: their length, their truth about one digit each, and the noise put in on purpose."""

import re
from collections import Counter
from pathlib import Path

import open_clip
import pytest

import mmlt
from mmlt.datasets.embedded.mnist_lt import DIGITS

FOLDER = Path(mmlt.__file__).parent / 'datasets' / 'texts' / 'corpora' / 'mnist-lt'
DROPPED = ('References', 'External links')
MAX_TOKENS = 14  # the tiny text tower reads 16, with the start and the end
BOILERPLATE, MISPLACED = 6, 4
NAME = re.compile(rf'\b({"|".join(DIGITS)}|\d)\b')


def parse(digit: int) -> dict[str, list[str]]:
    """Lines of each section; the first paragraph is section ''."""
    sections, heading = {'': []}, ''
    for line in (FOLDER / f'desc_{digit}.txt').read_text(encoding='utf-8').splitlines():
        if line.startswith('=='):
            heading = re.fullmatch('== (.+) ==', line)[1]
            assert heading not in sections
            sections[heading] = []
        elif line:
            sections[heading].append(line)
    return sections


def digits_named(sentence: str) -> list[int]:
    """Digits in the order in which a sentence names them, as a word or a numeral."""
    names = NAME.findall(sentence.lower())
    return [DIGITS.index(name) if name in DIGITS else int(name) for name in names]


SECTIONS = [parse(digit) for digit in range(10)]
TRUE = [sum((lines for name, lines in s.items() if name not in (*DROPPED, 'Noise')), []) for s in SECTIONS]
NOISE = [s['Noise'] for s in SECTIONS]
COMMON = set.intersection(*map(set, NOISE))
each_digit = pytest.mark.parametrize('digit', range(10), ids=DIGITS)


def test_files():
    names = {path.name for path in FOLDER.iterdir()}
    assert names == {f'desc_{digit}.txt' for digit in range(10)}


@each_digit
def test_layout(digit):
    names = list(SECTIONS[digit])
    assert len(SECTIONS[digit]['']) >= 2
    assert names[:5] == ['', 'Shape', 'Handwriting', 'Printed forms', 'Use']
    assert names[-1] == 'Noise'
    assert all(SECTIONS[digit].values())


def test_sections_to_drop_come_before_the_noise():
    found = [(name, lines) for s in SECTIONS for name, lines in s.items() if name in DROPPED]
    assert sorted(name for name, _ in found) == sorted(DROPPED)
    for _, lines in found:
        assert len(lines) == 2
        assert not any(digits_named(line) for line in lines)


@each_digit
def test_one_sentence_a_line_within_the_text_tower(digit):
    tokenizer = open_clip.get_tokenizer('ViT-B-16')
    for lines in SECTIONS[digit].values():
        for line in lines:
            assert re.fullmatch(r'[A-Z][^.!?]*\.', line), line
            assert len(tokenizer.encode(line)) <= MAX_TOKENS, line


@each_digit
def test_true_sentences_name_their_digit_first(digit):
    assert len(TRUE[digit]) >= 20
    for sentence in TRUE[digit]:
        assert digits_named(sentence)[:1] == [digit], sentence


def test_no_duplicates():
    # Case and numerals aside: 'A seven ...' and 'A 7 ...' are the same sentence.
    plain = [NAME.sub(lambda m: str(digits_named(m[0])[0]), s.lower()) for lines in TRUE for s in lines]
    assert [s for s, n in Counter(plain).items() if n > 1] == []


def test_boilerplate_is_the_same_in_every_file():
    assert len(COMMON) == BOILERPLATE
    assert not any(digits_named(sentence) for sentence in COMMON)


@each_digit
def test_misplaced_sentences_are_true_of_another_digit(digit):
    assert len(NOISE[digit]) == len(set(NOISE[digit])) == BOILERPLATE + MISPLACED
    misplaced = set(NOISE[digit]) - COMMON
    assert len(misplaced) == MISPLACED
    for sentence in misplaced:
        assert any(sentence in TRUE[other] for other in range(10) if other != digit), sentence
        assert digit not in digits_named(sentence), sentence


def test_every_file_has_a_choice_of_its_own():
    misplaced = [sentence for lines in NOISE for sentence in lines if sentence not in COMMON]
    assert len(misplaced) == len(set(misplaced)) == 10 * MISPLACED
