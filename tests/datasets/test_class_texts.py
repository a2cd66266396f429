"""Class texts: files of all kinds, sentences, what is refused, and the table of their tokens."""

import json
import logging
import math
import os
import shutil
import unicodedata

import numpy as np
import open_clip
import pytest
import torch
from mmengine.registry import DATASETS
from safetensors.torch import load_file, save_file

from mmlt import InputError
from mmlt.datasets import ClassTexts
from mmlt.datasets.texts.class_texts import parse_article, split_sentences
from mmlt.models import OpenCLIPText
from mmlt.models.text import token_table
from mmlt.models.text.token_table import TokenTable, by_length, cache_directory, encode_table, tokenize_corpus
from mmlt.utils import tensors_fingerprint, texts_fingerprint
from mmlt.utils.text_files import decode, read_lines

MODEL = 'mmlt-tiny-vit'  # reads 16 tokens
CLASSES = ('apple', 'red pear', 'plum')
APPLE = 'An apple is round. It grows on trees.'
PEAR = 'A pear is green and sweet.'
PLUM = 'A plum is small. It has a stone.'
SPLIT = [['An apple is round.', 'It grows on trees.'], [PEAR], ['A plum is small.', 'It has a stone.']]


def read(path, classes=CLASSES, **kwargs):
    kwargs.setdefault('templates', None)
    return ClassTexts(None if path is None else str(path), **kwargs).read(classes)


def write(folder, names=('desc_0', 'desc_1', 'desc_2'), encodings=('utf-8',) * 3, texts=(APPLE, PEAR, PLUM)):
    folder.mkdir(parents=True, exist_ok=True)
    for name, encoding, text in zip(names, encodings, texts):
        (folder / f'{name}.txt').write_bytes(text.encode(encoding))
    return folder


# Sentences


@pytest.mark.parametrize(
    'text, expected',
    [
        ('One is here. Two is there! Three? Four', ['One is here.', 'Two is there!', 'Three?', 'Four']),
        ('It is 3.5 cm long and costs 1.000 euros.', ['It is 3.5 cm long and costs 1.000 euros.']),
        ('Fruit, e.g. Apples and i.e. Pears, cf. Smith.', ['Fruit, e.g. Apples and i.e. Pears, cf. Smith.']),
        ('By J. Smith and (A. Jones) et al. Then more.', ['By J. Smith and (A. Jones) et al. Then more.']),
        ('Dr. Who met Mr. Bean vs. No. 5, see Fig. 3.', ['Dr. Who met Mr. Bean vs. No. 5, see Fig. 3.']),
        ('The U.S. Army came. It left.', ['The U.S. Army came.', 'It left.']),
        ('Malus spp. Are trees (Rosaceae). Next.', ['Malus spp. Are trees (Rosaceae).', 'Next.']),
        ('He said "Stop." "Why?" she asked. End.', ['He said "Stop."', '"Why?" she asked.', 'End.']),
        ('A dog (Canis). (A cat too.) 5 birds.', ['A dog (Canis).', '(A cat too.)', '5 birds.']),
        ('It was built. iPods were not.', ['It was built. iPods were not.']),
        ('Wait... Then go!!  Now.', ['Wait...', 'Then go!!', 'Now.']),
        ('  spaces   around. Here  ', ['spaces   around.', 'Here']),
        ('', []),
        (' \t ', []),
        ('.', ['.']),
    ],
)
def test_split_sentences(text, expected):
    assert split_sentences(text) == expected


def test_initials_without_spaces():
    assert split_sentences('By J.R.R. Tolkien in 1937. It is long.') == ['By J.R.R. Tolkien in 1937.', 'It is long.']


ARTICLE = """An apple is round. It is red.

== Uses ==
People  eat\tit. Some bake it.
=== References ===
Smith wrote a book about it.
=== In art ===
Painters like apples.
== references ==
Not this one either.
=== Deeper ===
Nor this one, which is below.
==== Deepest ====
Nor this.
== Culture ==
Apples fall on heads.
==External links==
http here and there
= Part two =
A new part begins.
== Further reading ==
Left out.
== Bibliography ==
Left out.
"""


def test_parse_article():
    assert parse_article(ARTICLE) == [
        'An apple is round.',
        'It is red.',
        'People eat it.',
        'Some bake it.',
        'Painters like apples.',
        'Apples fall on heads.',
        'A new part begins.',
    ]
    assert parse_article(ARTICLE, ('Uses', 'BIBLIOGRAPHY'))[:3] == [
        'An apple is round.',
        'It is red.',
        'Not this one either.',
    ]
    assert 'Smith wrote a book about it.' in parse_article(ARTICLE, ())
    assert parse_article('1 == 2 is wrong. The rest = b = c holds.') == ['1 == 2 is wrong.', 'The rest = b = c holds.']
    assert parse_article('') == parse_article('\n== References ==\nonly this\n') == []


def test_line_ends_of_any_system():
    assert parse_article('One two.\r\n== References ==\r\nthree\r\n== Uses ==\r\nFour.\r\n') == ['One two.', 'Four.']


# Files


@pytest.mark.parametrize('below', ['', 'wiki'])
def test_published_layout(tmp_path, below):
    write(tmp_path / below)
    assert read(tmp_path) == SPLIT


def test_utf8_and_gbk(tmp_path):
    texts = ('Größe “ça”.', '一个苹果 is an apple.', '\ufeffA plum is small.')
    write(tmp_path, encodings=('utf-8', 'gbk', 'utf-8'), texts=texts)
    assert read(tmp_path, min_words=1) == [['Größe “ça”.'], ['一个苹果 is an apple.'], ['A plum is small.']]


@pytest.mark.parametrize(
    'data, byte, value',
    [
        (b'an apple \xff\xff', 10, 'ff'),
        (b'\xef\xbb\xbfan apple \xff\xff', 13, 'ff'),
        ('一个苹果'.encode('gbk') + b' apple \xff', 16, 'ff'),
        ('caf\u00e9 is'.encode('latin-1'), 4, 'e9'),
    ],
    ids=['utf-8', 'utf-8 with mark', 'gbk', 'latin-1'],
)
def test_broken_encoding(tmp_path, data, byte, value):
    """The file is named, and the byte where the better of both readings fails."""
    write(tmp_path)
    (tmp_path / 'desc_1.txt').write_bytes(data)
    with pytest.raises(InputError, match=rf"desc_1\.txt' is neither UTF-8 nor GBK: byte {byte} is 0x{value}\."):
        read(tmp_path)


def test_decode_names_what_it_is_told():
    with pytest.raises(InputError, match="'some file' is neither"):
        decode(b'\xff\xff', 'some file')


@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'gbk'])
def test_lines_in_any_encoding(tmp_path, encoding):
    path = tmp_path / 'l.txt'
    path.write_bytes('苹果\r\nT恤 of 梨\n'.encode(encoding))
    assert read_lines(str(path)) == ['苹果', 'T恤 of 梨', '']


@pytest.mark.parametrize('text', ['Größe', 'caféine', 'naïve', 'Äpfel'])
def test_names_in_latin1_are_not_guessed(tmp_path, text):
    """GBK reads them without an error, as something else."""
    path = tmp_path / 'l.txt'
    path.write_bytes(f'apple\n{text}\n'.encode('latin-1'))
    with pytest.raises(InputError, match=r"l\.txt' is not UTF-8, and as GBK it would have '.*: save it as UTF-8"):
        read_lines(str(path))
    path.write_bytes('apple'.encode('utf-16')[:-1])
    with pytest.raises(InputError, match='begins as UTF-16 and is damaged'):
        read_lines(str(path))


def test_files_named_after_classes(tmp_path):
    write(tmp_path, names=('Apple', 'red_pear', 'plum'))
    assert read(tmp_path) == SPLIT
    (tmp_path / '._plum.txt').write_bytes(b'\xff')  # macOS leaves such beside files
    assert read(tmp_path) == SPLIT
    (tmp_path / 'quince.txt').write_text('A quince is yellow.')
    with pytest.raises(InputError, match="has texts of 'quince', which is none of the 3 classes"):
        read(tmp_path)


def test_composed_and_decomposed_letters_are_the_same_class(tmp_path):
    write(tmp_path, names=[unicodedata.normalize('NFD', 'Pêche')])
    assert read(tmp_path, classes=['pêche']) == SPLIT[:1]


def test_json(tmp_path):
    path = tmp_path / 'texts.json'
    path.write_text(json.dumps({'plum': ['A plum is small.', 'It has a stone.'], 'Apple': APPLE, 'red_pear': PEAR}))
    assert read(path) == SPLIT


def test_csv(tmp_path):
    path = tmp_path / 'texts.csv'
    path.write_text(
        f'source,text,class\nx,"{APPLE}",apple\nx,{PEAR},red pear\n\nx,A plum is small.,plum\nx,It has a stone.,plum\n'
    )
    assert read(path) == SPLIT
    path.write_text('class,text\napple,"One two\nThree four\n== References ==\nno"\n')
    assert read(path, classes=['apple'], min_words=1) == [['One two', 'Three four']]


def test_unquoted_comma_in_csv(tmp_path):
    """What stands after it would be lost."""
    path = tmp_path / 'texts.csv'
    path.write_text('class,text\napple,An apple is round, and it is red.\n')
    with pytest.raises(InputError, match=r"texts\.csv', line 2"):
        read(path, classes=['apple'])


def test_wrapped_lines_are_one_sentence():
    assert parse_article('An apple is a\nround fruit.\nit grows\non trees\n\nPears too') == [
        'An apple is a round fruit.',
        'it grows on trees',
        'Pears too',
    ]


def test_csv_with_a_long_text_and_odd_separators(tmp_path):
    path = tmp_path / 'texts.csv'
    path.write_text('class,text\napple,"' + 'An apple is round. ' * 10_000 + '"\n', encoding='utf-8')
    assert read(path, classes=['apple']) == [['An apple is round.']]
    path.write_text('class,text\napple,An apple\u2028is round.\n', encoding='utf-8')
    assert read(path, classes=['apple'], min_words=1) == [['An apple', 'is round.']]


@pytest.mark.parametrize(
    'name, content, sentence',
    [
        ('a.json', '{"apple": ', r"a\.json' is not valid JSON .*line 1"),
        ('a.json', '["apple"]', r'must be \{class name: text, or list of sentences\}'),
        ('a.json', '{"apple": 3}', r"must be \{class name: text.*class 'apple' is not"),
        ('a.json', '{"apple": ["x", 3]}', r"class 'apple' is not"),
        ('a.json', '{"appel": "a b c"}', r"texts of 'appel', which is none of the 3 classes: rename it"),
        ('a.csv', 'class,words\napple,x\n', r"a\.csv' has no column 'text', but 'class', 'words': its first line"),
        ('a.csv', '', r"a\.csv' has no column 'class'"),
        ('a.csv', 'class,text\napple,a b c\nplum,\n', r"a\.csv', line 3: class 'plum' has an empty text"),
        ('a.csv', 'class,text\napple,a b c\nplum\n', r"a\.csv', line 3: class 'plum' has an empty text"),
        ('a.csv', 'class,text\nappel,a b c\n', r"texts of 'appel', which is none of the 3 classes"),
        ('a.tsv', 'apple\tx', r"a\.tsv' has no column 'class', but 'apple', 'x'"),
        ('a.xml', 'apple\tx', r"a\.xml' are neither a folder nor a \.json, \.csv or \.tsv file"),
    ],
)
def test_unfit_files(tmp_path, name, content, sentence):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=sentence):
        read(tmp_path / name)


def test_missing_texts(tmp_path):
    with pytest.raises(InputError, match=r"class texts '.*none' do not exist: give a folder, a \.json or \.csv file"):
        read(tmp_path / 'none')
    with pytest.raises(InputError, match=r"has no texts of these classes: name its files .* for example 'apple\.txt'"):
        read(tmp_path)


@pytest.mark.parametrize('texts', [('', PEAR, PLUM), ('== References ==\nNot this one.', PEAR, PLUM)])
def test_class_without_text_is_named(tmp_path, texts):
    write(tmp_path, texts=texts)
    with pytest.raises(InputError, match=r"1 of 3 classes have no text in '.*': 'apple'\. Write at least one sentence"):
        read(tmp_path)


def test_short_texts_are_told_from_none(tmp_path):
    write(tmp_path, texts=('Too short.', PEAR, ''))
    with pytest.raises(
        InputError,
        match=r"1 of 3 classes have no text in '.*': 'plum'; 1 of 3 classes have texts in '.*' that are too short, "
        r"without a sentence of min_words=3 words: 'apple'\. Write",
    ):
        read(tmp_path)


def test_texts_without_any_sentence_are_refused(tmp_path):
    """Prompts would hide that what was asked for has no effect."""
    write(tmp_path, texts=('Too short.', '', 'No.'))
    with pytest.raises(InputError, match=r"too short.*'apple', 'plum'\. Write at least one .*, or leave the texts out"):
        read(tmp_path, templates='a photo of the {}')


def test_many_classes_without_text(tmp_path):
    write(tmp_path)
    classes = [*CLASSES, *(f'fruit {i}' for i in range(7))]
    with pytest.raises(InputError, match=r"7 of 10 classes have no text in .*: 'fruit 0', .*'fruit 4', \.\.\.\. Write"):
        read(tmp_path, classes)
    with pytest.raises(InputError, match="3 of 3 classes have no text: 'apple', 'red pear', 'plum'"):
        read(None)


def test_prompts_stand_for_a_class_without_text(tmp_path, caplog):
    write(tmp_path)
    (tmp_path / 'desc_1.txt').unlink()
    with caplog.at_level(logging.WARNING):
        texts = read(tmp_path, templates='a photo of the {}')
    assert texts[1] == ['a photo of the red pear']
    assert texts[0] == ['a photo of the apple', *SPLIT[0]]


# Prompts, limits, sources


def test_prompts_alone():
    texts = ClassTexts().read(CLASSES)
    assert [len(t) for t in texts] == [80] * 3
    assert all('red pear' in s for s in texts[1])
    assert ClassTexts(templates=['the {}', 'a {}']).read(CLASSES)[0] == ['the apple', 'a apple']


def test_prompts_come_first_and_nothing_twice():
    corpus = ClassTexts(templates=['the {}', 'a {}'])
    texts = corpus.read(['apple', 'pear'], [['x', 'a apple', 'x', 'y'], ['z']])
    assert texts == [['the apple', 'a apple', 'x', 'y'], ['the pear', 'a pear', 'z']]


def test_max_sentences_and_min_words(tmp_path):
    write(tmp_path)
    assert read(tmp_path, max_sentences=1) == [SPLIT[0][:1], SPLIT[1], SPLIT[2][:1]]
    assert read(tmp_path, templates='a {}', max_sentences=2)[0] == ['a apple', 'An apple is round.']
    assert read(tmp_path, min_words=5, templates='a {}') == [['a apple'], ['a red pear', PEAR], ['a plum']]


@pytest.mark.parametrize('number', [0, -1])
def test_no_sentence_at_all_is_no_limit(number):
    with pytest.raises(InputError, match='max_sentences'):
        ClassTexts(max_sentences=number)


def test_path_goes_before_what_the_dataset_says(tmp_path):
    write(tmp_path)
    source = [['one'], ['two'], ['three']]
    assert ClassTexts(str(tmp_path), templates=None).read(CLASSES, source) == SPLIT
    assert ClassTexts(templates=None).read(CLASSES, source) == source
    assert ClassTexts(templates=None).read(CLASSES, str(tmp_path)) == SPLIT
    assert ClassTexts(source, templates=None).read(CLASSES) == source


def test_texts_of_another_number_of_classes():
    with pytest.raises(InputError, match='There are texts of 2 classes, but 3 classes'):
        ClassTexts().read(CLASSES, [['one'], ['two']])


def test_one_text_a_class_is_no_list_of_letters():
    texts = ClassTexts(templates=None).read(CLASSES, [APPLE, PEAR, PLUM])
    assert texts == SPLIT or texts == [[APPLE], [PEAR], [PLUM]]


def test_named_corpus():
    names = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
    corpus = DATASETS.build(dict(type='mmlt.ClassTexts', path='mnist-lt', templates='a photo of the {}'))
    texts = corpus.read(names)
    assert len(texts) == 10 and all(len(own) > 20 for own in texts)
    assert texts[3][:2] == ['a photo of the three', 'The digit three has two bumps open to the left.']


def test_fingerprint_changes_with_any_sentence(tmp_path):
    write(tmp_path)
    corpus = ClassTexts(str(tmp_path))
    first = corpus.fingerprint(CLASSES)
    assert corpus.fingerprint(CLASSES) == first == texts_fingerprint(corpus.read(CLASSES))
    others = [
        ClassTexts(str(tmp_path), templates='clip').fingerprint(CLASSES),
        ClassTexts(str(tmp_path), max_sentences=81).fingerprint(CLASSES),
        corpus.fingerprint(('apple', 'pear', 'plum')),
    ]
    (tmp_path / 'desc_2.txt').write_text(PLUM + ' ')
    assert corpus.fingerprint(CLASSES) == first  # the same sentences
    (tmp_path / 'desc_2.txt').write_text(PLUM.replace('small', 'large'))
    others.append(corpus.fingerprint(CLASSES))
    assert len({first, *others}) == 5


@pytest.mark.parametrize('below', ['', 'wiki'])
def test_files_by_size_and_time(tmp_path, below):
    folder = tmp_path / below
    folder.mkdir(exist_ok=True)
    for i in range(2):
        (folder / f'desc_{i}.txt').write_text('A thing of this class.')
    texts = ClassTexts(templates=None)
    first = texts.files_fingerprint(str(tmp_path))
    assert texts.files is None
    texts.read(['a', 'b'], str(tmp_path))
    assert texts.files == first == ClassTexts(tmp_path).files_fingerprint()
    moved = shutil.copytree(tmp_path, f'{tmp_path} moved')
    assert texts.files_fingerprint(moved) == first
    os.utime(folder / 'desc_1.txt', ns=(5, 5))
    touched = texts.files_fingerprint(str(tmp_path))
    (folder / 'desc_0.txt').unlink()
    assert len({first, touched, texts.files_fingerprint(str(tmp_path))}) == 3


def test_texts_that_lie_in_no_file_have_no_fingerprint_of_files(tmp_path):
    assert ClassTexts().files_fingerprint() is None
    assert ClassTexts([['a thing']]).files_fingerprint('somewhere') is None
    assert ClassTexts().files_fingerprint(str(tmp_path / 'none')) is None
    (tmp_path / 'a.csv').write_text('class,text\n')
    assert ClassTexts().files_fingerprint(str(tmp_path / 'a.csv'))
    assert ClassTexts().files_fingerprint('mnist-lt')


def test_fingerprints():
    assert texts_fingerprint([['a', 'b'], ['c']]) == texts_fingerprint((('a', 'b'), ('c',)))
    texts = ([['a', 'b'], ['c']], [['a'], ['b', 'c']], [['ab'], ['c']], [['a', 'b'], []], [['b', 'a'], ['c']])
    assert len({texts_fingerprint(t) for t in texts}) == 5
    state = {
        'a': torch.tensor([1.0, 2.0]),
        'b': torch.tensor(3),
        'c': torch.ones(2, dtype=torch.bfloat16),
        'd': torch.zeros(0),
    }
    first = tensors_fingerprint(state)
    assert tensors_fingerprint(dict(reversed(state.items()))) == first
    for name, value in (('a', torch.tensor([1.0, 2.5])), ('b', torch.tensor(4)), ('e', torch.ones(1))):
        assert tensors_fingerprint({**state, name: value}) != first


# Tokens


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of the test's own, and a corpus of two chunks."""
    monkeypatch.setenv('MMLT_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr(token_table, '_CHUNK', 4)
    return [['an apple', 'a tree', 'a red apple'], ['a pear'], ['a plum', 'one more plum']]


@pytest.fixture
def tokenizer():
    """The tiny model's tokenizer, which counts its calls."""
    inner = open_clip.get_tokenizer(MODEL)

    class Counting:
        calls = 0
        context_length = inner.context_length

        def __call__(self, texts):
            self.calls += 1
            return inner(texts)

    return Counting()


def cached(tmp_path):
    return list((tmp_path / 'cache' / 'tokens').iterdir())


def test_table_of_tokens(tokenizer):
    sentences = [['an apple', 'a tree'], ['a pear'], ['a plum']]
    table = tokenize_corpus(sentences, tokenizer, MODEL)
    assert table.tokens.dtype == torch.int32 and table.tokens.shape == (4, 16)
    assert torch.equal(table.tokens.long(), tokenizer(['an apple', 'a tree', 'a pear', 'a plum']))
    assert table.counts.tolist() == [2, 1, 1] and table.offsets.tolist() == [0, 2, 3]
    assert table.labels.tolist() == [0, 0, 1, 2] and table.sentences == sentences


def test_long_sentences_are_cut_and_keep_their_end(tokenizer):
    table = tokenize_corpus([['an apple ' * 30], ['short']], tokenizer, MODEL)
    start, end = tokenizer([''])[0, :2].tolist()
    tokens = table.tokens.tolist()
    assert (tokens[0][0], tokens[0][-1]) == (start, end) and tokens[0].count(end) == 1
    assert tokens[0][1:15] == tokens[0][1:3] * 7
    assert tokens[1].index(end) == 2


def test_small_corpora_are_not_cached(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setenv('MMLT_CACHE', str(tmp_path / 'cache'))
    tokenize_corpus([['an apple'], ['a pear']], tokenizer, MODEL)
    assert not (tmp_path / 'cache').exists()


def test_cache_is_read_back(tmp_path, cache, tokenizer):
    first = tokenize_corpus(cache, tokenizer, MODEL)
    (path,) = cached(tmp_path)
    assert path.suffix == '.safetensors' and tokenizer.calls == 2
    assert torch.equal(first.tokens.long(), tokenizer([s for own in cache for s in own]))
    again = tokenize_corpus(cache, tokenizer, MODEL)
    assert tokenizer.calls == 3  # the two of the first time, and the test's
    assert torch.equal(again.tokens, first.tokens) and again.sentences == cache and again.counts.tolist() == [3, 1, 2]


def test_another_corpus_model_or_context_has_a_cache_of_its_own(tmp_path, cache, tokenizer):
    tokenize_corpus(cache, tokenizer, MODEL)
    tokenize_corpus([['an apple', 'a tree', 'a big apple'], *cache[1:]], tokenizer, MODEL)
    tokenize_corpus(cache, tokenizer, 'another-model')
    tokenizer.context_length = 77
    tokenize_corpus(cache, tokenizer, MODEL)
    assert len(cached(tmp_path)) == 4
    # The same sentences, differently shared out among the classes, have the same tokens.
    table = tokenize_corpus([cache[0] + cache[1], cache[2]], tokenizer, MODEL)
    assert len(cached(tmp_path)) == 4 and table.counts.tolist() == [4, 2]


@pytest.mark.parametrize('damage', ['cut', 'empty', 'another'])
def test_damaged_cache_is_made_anew(tmp_path, cache, tokenizer, damage):
    first = tokenize_corpus(cache, tokenizer, MODEL)
    (path,) = cached(tmp_path)
    if damage == 'another':
        save_file({'other': torch.ones(1)}, path)
    else:
        path.write_bytes(b'' if damage == 'empty' else path.read_bytes()[:-9])
    assert torch.equal(tokenize_corpus(cache, tokenizer, MODEL).tokens, first.tokens)
    assert torch.equal(load_file(path)['tokens'], first.tokens)
    assert cached(tmp_path) == [path]


def test_where_the_cache_is(tmp_path, monkeypatch):
    monkeypatch.setenv('MMLT_CACHE', str(tmp_path / 'a'))
    assert cache_directory() == tmp_path / 'a'
    monkeypatch.delenv('MMLT_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'b'))
    assert cache_directory() == tmp_path / 'b' / 'mmlt'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path / 'c'))
    assert cache_directory() == tmp_path / 'c' / '.cache' / 'mmlt'


@pytest.mark.parametrize('batch_size', [1, 2, 512])
def test_encoding_a_table(batch_size):
    tower = torch.nn.Embedding(30, 3)
    tokens = torch.arange(5).unsqueeze(1).int()
    table = TokenTable(tokens, torch.tensor([5]), [['x'] * 5])
    encoder = torch.nn.Sequential(tower, torch.nn.Flatten())
    with torch.autocast('cpu', torch.bfloat16):
        features = encode_table(encoder, table, 'Test', batch_size)
    assert torch.equal(features, tower.weight[:5]) and not features.requires_grad


def _table(rng_seed=0, number=11, length=9):
    """Texts of random lengths: a beginning, words, an end-of-text token of the largest number, padding."""
    rng = np.random.default_rng(rng_seed)
    tokens = torch.zeros(number, length, dtype=torch.int32)
    lengths = rng.integers(2, length + 1, number)
    for row, n in zip(tokens, lengths):
        row[:n] = torch.tensor([28, *rng.integers(1, 28, n - 2), 29])
    return TokenTable(tokens, torch.tensor([number]), [['x'] * number]), torch.from_numpy(lengths)


def test_rows_by_length():
    table, lengths = _table()
    order = by_length(table.tokens)
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert torch.equal(lengths[order], lengths.sort().values)
    assert by_length(torch.zeros(3, 1)).tolist() == [0, 1, 2]


@pytest.mark.parametrize('world_size', [1, 2, 3, 4, 12])
def test_sentences_are_encoded_by_length_and_come_back_in_order(monkeypatch, world_size):
    """Processes share out all lengths evenly; their features are put together as ``gather`` does."""
    table, lengths = _table()
    weight = torch.randn(30, 3)
    batches = []

    class Tower(torch.nn.Linear):
        def forward(self, tokens):
            batches.append([int((row != 0).sum()) for row in tokens])
            return weight[tokens.long()].cumsum(1).sum(1)

    parts = []
    for rank in range(world_size):
        monkeypatch.setattr(token_table, 'get_dist_info', lambda rank=rank: (rank, world_size))
        monkeypatch.setattr(token_table, 'gather', lambda x: parts.append(x) or x.repeat(world_size, 1))
        encode_table(Tower(1, 1), table, 'Test', 2)
    monkeypatch.setattr(token_table, 'gather', lambda x: torch.cat(parts))
    features = encode_table(Tower(1, 1), table, 'Test', 2)
    assert torch.allclose(features, weight[table.tokens.long()].cumsum(1).sum(1), atol=1e-5)
    share = math.ceil(len(lengths) / world_size)
    first = batches[: math.ceil(share / 2)]  # those of the first process
    ends = [(max(batch), min(batch)) for batch in first]
    assert all(shortest >= longest for (_, shortest), (longest, _) in zip(ends, ends[1:]))  # the longest first


def test_a_tower_gives_the_same_for_every_sentence():
    tower = OpenCLIPText(MODEL).eval()
    texts = [['a cat.', 'a photo of a very small cat, which sleeps.'], ['dog', 'a dog; two dogs.', 'a cat.']]
    table = tokenize_corpus(texts, tower.tokenizer, MODEL)
    expected = tower(table.tokens).detach()
    assert (encode_table(tower, table, 'Test', 2) - expected).abs().max() < 1e-5 * expected.abs().max()
