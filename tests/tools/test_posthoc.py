"""`test --save-logits` and the tool that works on its files, as they are called."""

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample
from PIL import Image

from mmlt.apis.posthoc import make_steps, parse_taus
from mmlt.cli import posthoc
from mmlt.evaluation import shot_accuracy
from mmlt.evaluation.posthoc import log_softmax, tau_normalise, temperature_scaling
from mmlt.evaluation.save_logits import SaveLogits
from mmlt.evaluation.scores_file import Scores, read_scores, write_scores
from mmlt.models import TauNormClsHead

REPO = Path(__file__).parent.parent.parent
COUNTS = np.array([600, 200, 60, 30, 8, 3])
NAMES = np.array([f'kind {c}' for c in range(6)])
BACKWARD = [2, 3, 6, 12, 21, 40]  # int(40 * 20 ** (-i / 5)), by hand


def biased(seed, per_class=40, scale=1.0) -> Scores:
    """Scores of a model that prefers frequent classes as its training prior says: the best tau is near 1."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(6), per_class)
    logits = rng.normal(size=(len(labels), 6))
    logits[np.arange(len(labels)), labels] += 2
    logits = scale * (2 * logits + np.log(COUNTS / COUNTS.sum()))
    facts = {'scores': 'log-probabilities', 'protocol': 'standard', 'checkpoint': 'a.pth', 'tta': False}
    return Scores(log_softmax(logits), labels, NAMES, COUNTS, 'test' if seed else 'val', facts)


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_scores(biased(0), 'val.npz')
    write_scores(biased(1), 'test.npz')
    return tmp_path


def classes_of(folder) -> list[dict]:
    with open(Path(folder, 'classes.csv'), newline='') as file:
        return list(csv.DictReader(file))


def test_adjustment_and_temperature_are_chosen_on_the_validation(files, capsys):
    write_scores(biased(0, scale=3.0), 'val.npz')
    posthoc.main(['test.npz', '--val', 'val.npz', '--tau', '0:4:0.5', '--temperature', '--out', 'o'])
    out = capsys.readouterr().out
    val, test = read_scores('val.npz'), read_scores('test.npz')
    prior = np.log(COUNTS / COUNTS.sum())
    balanced = [
        shot_accuracy(val.labels, (val.logits - t * prior).argmax(1), COUNTS)['all'] for t in parse_taus('0:4:.5')
    ]
    tau = int(np.argmax(balanced)) / 2
    assert tau > 1.5 and f'tau {tau:g} is the best of 9 on val: {max(balanced):.1f}' in out  # on the test it is near 1
    temperature = temperature_scaling(val.logits - tau * prior, val.labels).value
    assert f'adjusted, tau {tau:g}' in out and f'temperature {temperature:.3g}' in out
    after = shot_accuracy(test.labels, (test.logits - tau * prior).argmax(1), COUNTS)
    rows = [line.split() for line in out.splitlines() if line.strip().startswith(('as tested', 'adjusted'))]
    assert rows[1][3:7] == [f'{after[k]:.1f}' for k in ('many', 'medium', 'few', 'balanced')]
    before = shot_accuracy(test.labels, test.logits.argmax(1), COUNTS)
    table = classes_of('o')
    assert [row['class'] for row in table] == NAMES.tolist()
    assert [row['train_images'] for row in table] == [str(n) for n in COUNTS]
    assert {row['test_images'] for row in table} == {'40'}
    for key, figures in (('accuracy_before', before), ('accuracy_after', after)):
        assert [float(row[key]) for row in table] == pytest.approx(figures['per_class'], abs=0.01)
    confidence = np.exp(log_softmax((test.logits - tau * prior) / temperature)).max(1).reshape(6, 40).mean(1)
    assert [float(row['confidence_after']) for row in table] == pytest.approx(100 * confidence, abs=0.01)
    for name in ('reliability.png', 'tau.png'):
        with Image.open(files / 'o' / name) as image:
            assert image.format == 'PNG' and len(np.unique(np.asarray(image.convert('RGB')))) > 20


def test_one_tau_needs_no_validation_and_equals_the_uniform_prior(files, capsys):
    posthoc.main(['test.npz', '--tau', '1', '--out', 'one'])
    posthoc.main(['test.npz', '--prior', 'uniform', '--out', 'two'])
    posthoc.main(['test.npz'])
    assert classes_of('one') == classes_of('two') != classes_of('test_posthoc')
    assert not Path('one/tau.png').exists()
    assert all(row['accuracy_before'] == row['accuracy_after'] for row in classes_of('test_posthoc'))
    few = [sum(float(row[f'accuracy_{when}']) for row in classes_of('one')[4:]) for when in ('before', 'after')]
    assert few[1] > few[0] + 20


def test_a_backward_prior_is_tested_on_images_that_have_it(files, capsys):
    posthoc.main(['test.npz', '--prior', 'backward:20', '--val', 'val.npz', '--temperature', '--out', 'o'])
    out = capsys.readouterr().out
    assert f'{sum(BACKWARD)} of 240 test images, drawn for the prior backward:20' in out
    assert [int(row['test_images']) for row in classes_of('o')] == BACKWARD
    first = classes_of('o')
    lacking = biased(0)  # tau alone needs no drawn validation
    write_scores(
        changed(lacking, labels=np.minimum(lacking.labels, 4)), 'val.npz'
    )  # tau alone needs no drawn validation
    posthoc.main(['test.npz', '--prior', 'backward:20', '--val', 'val.npz', '--tau', '0:1:1', '--out', 'tau'])
    assert [int(row['test_images']) for row in classes_of('tau')] == BACKWARD
    posthoc.main(['test.npz', '--prior', 'backward:20', '--seed', '1', '--out', 'o'])
    assert classes_of('o') != first
    assert [int(row['test_images']) for row in classes_of('o')] == BACKWARD


def test_pictures_of_the_test_are_left_out_of_the_validation():
    """Another draw of the same pictures has some of the test's: what is chosen is chosen on the others."""
    test, val = biased(1), biased(0)
    digests = np.array([f'sha256:{i}' for i in range(480)])
    test = changed(test, images=digests[:240])
    places = np.random.default_rng(0).permutation(np.arange(150, 390))  # 90 of the test's, 150 of others
    known = changed(val, images=digests[places])
    own = places >= 240
    alone = changed(val, logits=val.logits[own], labels=val.labels[own])
    taus = [0.0, 0.5, 1.0, 1.5, 2.0]
    found, wanted = (make_steps(test, v, taus, temperature=True) for v in (known, alone))
    assert found.sweep[2] == wanted.sweep[2] and found.sweep[1].tolist() == wanted.sweep[1].tolist()
    assert list(found.logits) == list(wanted.logits)  # the fitted temperature is in a name
    for name, logits in found.logits.items():
        assert np.array_equal(logits, wanted.logits[name])
    assert '90 of 240 images of --val are images of the test, too, and are left out.' in found.notes
    assert make_steps(test, val, taus).sweep[1].tolist() != found.sweep[1].tolist()


def test_a_prior_of_a_table(files, capsys):
    Path('p.csv').write_text('class,prior\n' + ''.join(f'{n},{p}\n' for n, p in zip(NAMES[::-1], COUNTS[::-1])))
    posthoc.main(['test.npz', '--prior', 'p.csv', '--out', 'o'])  # that of training: nothing changes
    assert all(row['accuracy_before'] == row['accuracy_after'] for row in classes_of('o'))
    posthoc.main(['test.npz', '--prior', 'p.csv', '--tau', '1', '--out', 'o'])  # taken away and given back
    assert all(row['accuracy_before'] == row['accuracy_after'] for row in classes_of('o'))
    assert 'prior p.csv' in capsys.readouterr().out


def changed(scores, **changes) -> Scores:
    return Scores(**{**vars(scores), **changes})


@pytest.mark.parametrize(
    ('arguments', 'told'),
    [
        (['nowhere.npz'], "There is no file of scores 'nowhere.npz'"),
        (['test.npz', '--tau', '0:2:0.1'], '--tau FIRST:LAST:STEP is chosen on a validation split, never on the test'),
        (['test.npz', '--temperature'], r'--temperature is chosen on a validation .* as --val VAL.npz\.$'),
        (['test.npz', '--tau', 'x'], "--tau is 'x'; give a number"),
        (['test.npz', '--tau', '0:2'], "--tau is '0:2'; give a number"),
        (['test.npz', '--tau', 'inf'], "--tau is 'inf'; give a number"),
        (['test.npz', '--tau=-1'], "--tau is '-1'; give a number that is not negative"),
        (['test.npz', '--tau', '2:0:0.1'], 'the last is not below the first'),
        (['test.npz', '--tau', '0:2:1e-9'], 'at most 1001 values'),
        (['test.npz', '--prior', 'forward'], "--prior is 'forward', which is no file; give uniform"),
        (['test.npz', '--prior', 'forward:x'], "--prior is 'forward:x'; the ratio is a number"),
        (['test.npz', '--prior', 'forward:0.5'], 'at least 1'),
        (['test.npz', '--prior', 'forward:nan'], 'at least 1'),
        (['test.npz', '--prior', 'backward:500'], 'would have no image of class 0, .* of at most 40'),
        (
            ['test.npz', '--prior', 'forward:2', '--val', 'lacking.npz', '--temperature'],
            'prior forward:2 cannot be drawn from --val, on which the temperature is fitted, as it is: Class 5 has no',
        ),
        (['test.npz', '--prior', 'twice.csv'], "line 3: the class 'kind 0' comes twice"),
        (['test.npz', '--prior', 'other.csv'], "line 2: the class 'pear' is not among the tested classes"),
        (['test.npz', '--prior', 'short.csv'], "has no prior of the class 'kind 1'"),
        (['test.npz', '--prior', 'zero.csv'], 'line 2: the prior is 0; give a positive number'),
        (['test.npz', '--prior', 'text.csv'], "line 2: the prior 'x' is no number"),
        (['test.npz', '--val', 'test.npz'], r'--val has images of the test \(the scores are the same\)'),
        (['test.npz', '--val', 'renamed.npz'], "class 0 is 'A' in --val and 'kind 0' in the test"),
        (['test.npz', '--val', 'counts.npz'], "Class 'kind 0' has 599 training images in --val and 600 in the test"),
        (['empty.npz', '--tau', '1'], 'Class 5 has 0 training images, of which there is no logarithm'),
        (['named.npz', '--val', 'shared.npz'], r"--val has images of the test \('x/0.png' is in both\)"),
        (['pixels.npz', '--val', 'same.npz'], r'--val has images of the test \(120 of 240\)'),
        (['test.npz', '--tau', ''], '--tau is given and empty'),
    ],
)
def test_bad_input_ends_in_one_sentence(files, arguments, told):
    val, test = biased(0), biased(1)
    images = np.array([f'x/{i}.png' for i in range(240)])
    write_scores(changed(val, classes=np.array([*'ABCDEF'])), 'renamed.npz')
    write_scores(changed(val, class_counts=COUNTS - 1), 'counts.npz')
    write_scores(changed(test, class_counts=COUNTS - 3), 'empty.npz')
    write_scores(changed(val, labels=np.minimum(val.labels, 4)), 'lacking.npz')
    write_scores(changed(test, images=images), 'named.npz')
    write_scores(changed(val, images=images), 'shared.npz')
    digests = np.array([f'sha256:{i}' for i in range(360)])
    write_scores(changed(test, images=digests[:240]), 'pixels.npz')
    write_scores(changed(val, images=digests[120:]), 'same.npz')
    for name, lines in {
        'twice': 'kind 0,1\nkind 0,1',
        'other': 'pear,1',
        'short': 'kind 0,1',
        'zero': 'kind 0,0',
        'text': 'kind 0,x',
    }.items():
        Path(f'{name}.csv').write_text(f'class,prior\n{lines}\n')
    with pytest.raises(SystemExit) as error:
        posthoc.main(arguments)
    assert str(error.value).startswith('mmlt: ') and '\n' not in str(error.value)
    with pytest.raises(SystemExit, match=told):
        posthoc.main(arguments)


def test_what_may_be_a_mistake_is_told(files, capsys):
    write_scores(changed(biased(0), facts={'checkpoint': 'b.pth', 'tta': True}), 'val.npz')
    posthoc.main(['test.npz', '--val', 'val.npz', '--tau', '0:0.2:0.1'])
    out = capsys.readouterr().out
    assert "Mind: checkpoint is 'b.pth' in --val and 'a.pth' in the test." in out and 'Mind: tta is' in out
    assert 'It is the largest that was tried' in out
    right = changed(biased(0), logits=log_softmax(np.eye(6)[biased(0).labels]))
    write_scores(right, 'val.npz')
    posthoc.main(['test.npz', '--val', 'val.npz', '--temperature'])
    assert 'The temperature ends at its bound 0.01' in capsys.readouterr().out


def test_tau_ranges_have_both_ends():
    assert parse_taus('0:2:0.1') == [round(0.1 * i, 10) for i in range(21)]
    assert parse_taus('0.5:1:0.25') == [0.5, 0.75, 1.0] and parse_taus('1.5') == [1.5]
    assert parse_taus('1:1:1') == [1.0] and parse_taus('0:1:0.4') == [0, 0.4, 0.8]


# tools/test.py


def test_two_processes_save_what_one_does(two_stages, test_tool, launcher_env):
    """Five images on two processes: one of them is padding."""
    lines = Path('test.txt').read_text().splitlines()
    order = [5, 0, 3, 1, 4]
    Path('test.txt').write_text('\n'.join(lines[i] for i in order) + '\n')
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2']
    command += [f'--master_port={launcher_env["PORT"]}', str(REPO / 'tools/test.py'), 'a.py', '--launcher', 'pytorch']
    command += ['--save-logits', 'two.npz', '--cfg-options', 'test_dataloader.batch_size=2']
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=launcher_env)
    test_tool.main(['a.py', '--save-logits', 'one.npz', '--work-dir', 'one'])
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 0, text[-4000:]
    one, two = read_scores('one.npz'), read_scores('two.npz')
    for found in (one, two):
        assert [Path(p).parts[-2:] for p in found.images] == [tuple(lines[i].split()[0].split('/')) for i in order]
        assert found.labels.tolist() == [int(lines[i].split()[1]) for i in order]
        assert found.classes.tolist() == ['apple', 'pear', 'plum'] and found.class_counts.tolist() == [6, 3, 1]
        assert found.split == 'test' and found.facts['scores'] == 'log-probabilities'
        assert found.facts['config'].endswith('a.py') and found.facts['checkpoint'] is None
    np.testing.assert_allclose(two.logits, one.logits, atol=1e-5)
    report = json.loads(Path('one/shot_report.json').read_text())
    own = shot_accuracy(one.labels, one.logits.argmax(1), one.class_counts)
    assert own['balanced'] == pytest.approx(report['metrics']['balanced'])


def test_fused_scores_of_several_views_are_saved(two_stages, test_tool):
    test_tool.main(['a.py', '--save-logits', 'plain.npz'])
    test_tool.main(['a.py', '--save-logits', 'tta.npz', '--tta'])
    plain, fused = read_scores('plain.npz'), read_scores('tta.npz')
    assert fused.facts['tta'] is True and plain.facts['tta'] is False
    assert fused.images.tolist() == plain.images.tolist() and fused.facts['scores'] == 'log-probabilities'
    assert np.abs(fused.logits - plain.logits).max() > 1e-6
    np.testing.assert_allclose(np.exp(fused.logits).sum(1), 1, atol=1e-5)


def test_what_cannot_be_saved_ends_before_the_test(two_stages, test_tool):
    with pytest.raises(SystemExit, match=r"mmlt: Scores are written as \.npz, but 's\.pth' is not"):
        test_tool.main(['a.py', '--save-logits', 's.pth'])
    config = f'{REPO}/configs/baselines/bce_tiny_multi-label-digits.py'
    with pytest.raises(SystemExit, match='MultiLabelLinearClsHead predicts several labels or tasks'):
        test_tool.main([config, '--save-logits', 's.npz'])
    assert not Path('s.npz').exists()


# tau-normalisation


@pytest.mark.parametrize('tau', [0.0, 0.5, 1.0])
def test_tau_normalisation_is_what_the_head_computes(tmp_path, tau):
    """From saved logits, as mmlt.TauNormClsHead computes it from the features."""
    torch.manual_seed(3)
    head, features = LinearClsHead(6, 5), torch.randn(9, 5)
    head.fc.weight.data *= torch.arange(1, 7)[:, None]
    normalised = TauNormClsHead(6, 5, tau=tau)
    normalised.load_state_dict(head.state_dict())
    metric = SaveLogits(str(tmp_path / 's.npz'), class_counts=COUNTS.tolist())
    metric.watch(head.fc)
    metric.dataset_meta = dict(classes=NAMES.tolist())
    for part in features.split(4):
        scores = head((part,)).softmax(1)
        metric.process(None, [DataSample().set_gt_label(0).set_pred_score(s).to_dict() for s in scores])
    metric.evaluate(9)
    found = read_scores(tmp_path / 's.npz')
    assert found.facts['scores'] == 'logits'
    np.testing.assert_allclose(found.logits, head((features,)).detach().numpy(), rtol=1e-5, atol=1e-6)
    expected = normalised((features,)).detach().numpy()
    np.testing.assert_allclose(tau_normalise(found.logits, found.weight_norms, found.bias, tau), expected, atol=5e-6)
    np.testing.assert_allclose(found.weight_norms, np.sqrt((head.fc.weight.detach().numpy() ** 2).sum(1)), rtol=1e-6)


def test_scores_without_logits_are_probabilities(tmp_path):
    """A layer that is not called once a batch (compiled, or several views) tells nothing."""
    metric = SaveLogits(str(tmp_path / 's.npz'), class_counts=[3, 2])
    metric.watch(torch.nn.Linear(2, 2))
    metric.process(None, [DataSample().set_gt_label(0).set_pred_score(torch.tensor([0.25, 0.75])).to_dict()])
    metric.evaluate(1)
    found = read_scores(tmp_path / 's.npz')
    assert found.weight_norms is None and found.facts['scores'] == 'log-probabilities'


def test_tau_norm_is_chosen_on_the_validation(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    test, val = biased(0), biased(1)
    norms = np.linspace(3, 1, 6).astype(np.float32)
    for name, scores in (('test', test), ('val', val)):
        write_scores(replace(scores, weight_norms=norms, bias=np.zeros(6, np.float32)), f'{name}.npz')
    taus = [0, 0.5, 1.0, 1.5]
    z = [tau_normalise(val.logits, norms, None, t) for t in taus]
    best = taus[int(np.argmax([np.mean([(p.argmax(1) == c)[val.labels == c].mean() for c in range(6)]) for p in z]))]
    posthoc.main(['test.npz', '--val', 'val.npz', '--tau-norm', '0:1.5:0.5'])
    said = capsys.readouterr().out
    assert f'tau-normalised, tau {best:g}' in said and 'as tested' in said
    for arguments, why in (
        (['test.npz', '--tau-norm', '0:1:0.5'], '--tau-norm FIRST:LAST:STEP is chosen on a validation split'),
        (['test.npz', '--tau-norm=-1'], "--tau-norm is '-1'"),
    ):
        with pytest.raises(SystemExit, match=why):
            posthoc.main(arguments)
    write_scores(test, 'test.npz')
    with pytest.raises(SystemExit, match='which the scores of the test do not have'):
        posthoc.main(['test.npz', '--tau-norm', '0.5'])
