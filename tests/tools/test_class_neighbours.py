"""The tool that writes neighbour classes from class texts, as it is called."""

import json
import math
from pathlib import Path

import open_clip
import pytest
import torch

from mmlt.cli import class_neighbours as tool
from mmlt.models import CUELoss
from mmlt.models.losses import nearest_classes, neighbour_table, read_neighbours
from mmlt.models.open_clip_towers import open_clip_load_checkpoint
from mmlt.utils.class_info import ClassInfo

REPO = Path(__file__).parent.parent.parent
VIT = 'mmlt-tiny-vit'
CLASSES = ('apple', 'pear', 'plum', 'sweet pepper', 'Löwe [zoo]')
PROMPT = 'the {} on a plate'


@pytest.fixture
def classes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('classes.txt').write_text('\n'.join(CLASSES) + '\n', encoding='utf-8')
    return 'classes.txt'


def naive_cosines(rows):
    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b)) / math.sqrt(sum(x * x for x in a) * sum(y * y for y in b))

    return [[cosine(a, b) for b in rows] for a in rows]


def naive(embeddings, classes, number):
    """One class after the other, the best of the rest each time."""
    found = {}
    for i, row in enumerate(naive_cosines(embeddings.double().tolist())):
        left, nearest = [j for j in range(len(row)) if j != i], []
        while left and len(nearest) < number:
            best = max(left, key=lambda j: (row[j], -j))
            left.remove(best)
            nearest.append(classes[best])
        found[classes[i]] = nearest
    return found


def names(found):
    return {name: [other for other, _ in nearest] for name, nearest in found.items()}


@torch.no_grad()
def embeddings_of(clip_file, templates=('a photo of a {}.',), classes=CLASSES):
    clip = open_clip.create_model(VIT).eval()
    open_clip_load_checkpoint(clip, clip_file)
    tokenizer = open_clip.get_tokenizer(VIT)
    return sum(clip.encode_text(tokenizer([t.format(c) for c in classes]), normalize=True) for t in templates)


@pytest.mark.parametrize('number', [1, 3, 9])
def test_nearest(number):
    embeddings = 3 * torch.randn(7, 4)
    classes = tuple('abcdefg')
    found = nearest_classes(embeddings, classes, number)
    assert names(found) == naive(embeddings, classes, number)
    cosines = naive_cosines(embeddings.double().tolist())
    for i, nearest in enumerate(found.values()):
        assert [c for _, c in nearest] == pytest.approx(sorted(cosines[i][:i] + cosines[i][i + 1 :])[::-1][:number])


def test_equal_cosines_and_equal_names():
    assert names(nearest_classes(torch.ones(4, 2), tuple('abcd'), 2))['c'] == ['a', 'b']
    angles = torch.tensor([0.0, 0.1, 0.2, 0.5])
    embeddings = torch.stack([angles.cos(), angles.sin()], dim=1)
    found = names(nearest_classes(embeddings, ('crane', 'bird', 'crane', 'car'), 3))
    assert found == {'crane': ['bird', 'car'], 'bird': ['crane', 'car'], 'car': ['crane', 'bird']}
    assert neighbour_table(found, ('crane', 'bird', 'crane', 'car')).shape == (4, 3)


def test_file_of_a_model_and_a_class_list(classes, clip_file, capsys):
    command = ['--model', VIT, '--pretrained', clip_file, '--classes', classes]
    tool.main([*command, '--top', '2', '-o', 'new/n.json'])
    out = capsys.readouterr().out
    assert 'Neighbours: new/n.json' in out and 'Löwe [zoo]' in out and 'sweet pepper' in out
    assert read_neighbours('new/n.json') == naive(embeddings_of(clip_file), CLASSES, 2)
    # It is what the loss takes.
    loss = CUELoss(neighbours='new/n.json', zero_shot_weight=0)
    loss.set_class_info(ClassInfo(CLASSES))
    assert loss.train().table.shape == (5, 2)
    # Other prompts.
    templates = ('the {}', 'a drawing of a {}')
    tool.main([*command, '--templates', *templates])
    assert read_neighbours('neighbours.json') == naive(embeddings_of(clip_file, templates), CLASSES, 4)


def test_file_of_a_config(two_stages, clip_file):
    tool.main(['a.py', '--top', '1'])
    fruits = ('apple', 'pear', 'plum')
    assert read_neighbours('neighbours.json') == naive(embeddings_of(clip_file, classes=fruits), fruits, 1)
    # The teacher's prompts where there is one; names of another list.
    Path('c.py').write_text(
        "_base_ = ['./a.py']\n"
        f"model = dict(teacher=dict(model='{VIT}', pretrained='{clip_file}', templates='{PROMPT}'))\n"
    )
    Path('other.txt').write_text('\n'.join(CLASSES[:4]))
    command, before = ['c.py', '--classes', 'other.txt', '--top', '2'], Path('neighbours.json').read_bytes()
    with pytest.raises(SystemExit, match="'neighbours.json' exists: give another -o, or --overwrite"):
        tool.main(command)  # it may have been edited
    assert Path('neighbours.json').read_bytes() == before
    tool.main([*command, '--overwrite'])
    expected = naive(embeddings_of(clip_file, (PROMPT,), CLASSES[:4]), CLASSES[:4], 2)
    assert json.loads(Path('neighbours.json').read_text()) == expected
    assert expected != naive(
        embeddings_of(clip_file, classes=CLASSES[:4]), CLASSES[:4], 2
    )  # those of the head's prompts


def test_long_lists_are_shown_in_part(clip_file, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('classes.txt').write_text('\n'.join(f'thing {i}' for i in range(12)))
    tool.main(['--model', VIT, '--pretrained', clip_file, '--classes', 'classes.txt'])
    out = capsys.readouterr().out
    assert 'the first 10 of 12 classes' in out and '│ thing 9 ' in out and '│ thing 10 ' not in out
    assert len(read_neighbours('neighbours.json')) == 12


def test_refusals(two_stages, clip_file, capsys):
    def refuses(sentence, *arguments):
        with pytest.raises(SystemExit, match=sentence) as stop:
            tool.main([*arguments])
        assert str(stop.value).startswith('mmlt: ') and '\n' not in str(stop.value)
        assert not Path('neighbours.json').exists()

    refuses("class list 'none.txt' does not exist", '--model', VIT, '--pretrained', clip_file, '--classes', 'none.txt')
    refuses("no model 'vit-x'", '--model', 'vit-x', '--pretrained', clip_file, '--classes', 'imagenet')
    refuses(f"'{VIT}' names no pretrained weights", '--model', VIT, '--classes', 'imagenet')
    refuses("config 'none.py' does not exist", 'none.py')
    refuses('--top is 0; give at least 1', 'a.py', '--top', '0')
    refuses("prompt template 'fruit' has no {}", 'a.py', '--templates', 'fruit')
    Path('linear.py').write_text(
        "_base_ = ['./a.py']\nmodel = dict(head=dict(_delete_=True, type='LinearClsHead', num_classes=3))\n"
    )
    refuses("The model of 'linear.py' has no text tower", 'linear.py')
    Path('nowhere.py').write_text("_base_ = ['./a.py']\ntest_dataloader = dict(dataset=dict(classes='none.txt'))\n")
    refuses("class names of 'nowhere.py' are in files that are not there: give --classes", 'nowhere.py')
    for arguments in ([], ['a.py', '--model', VIT], ['--model', VIT]):
        with pytest.raises(SystemExit, match='2'):
            tool.main(arguments)
    assert '--model needs --classes' in capsys.readouterr().err
