"""The scores of a test as a file: order, counts, kinds of scores, and what is refused."""

import hashlib
import json

import numpy as np
import pytest
import torch
from mmengine.dataset import BaseDataset
from mmpretrain.structures import DataSample

from mmlt import InputError
from mmlt.evaluation.save_logits import SaveLogits, as_logits, in_order
from mmlt.evaluation.scores_file import Scores, read_scores, write_scores

NAMES = ('apple', 'pear', 'plum')
META = {'classes': NAMES, 'class_counts': [200, 50, 3]}


def batch(labels, scores, places=None):
    samples = []
    for i, (y, s) in enumerate(zip(labels, scores)):
        sample = DataSample().set_gt_label(y).set_pred_score(s)
        if places is not None:
            sample.set_metainfo({'sample_idx': places[i], 'img_path': f'{places[i]}.png'})
        samples.append(sample.to_dict())
    return samples


def saved(tmp_path, *batches, size=None, **kwargs) -> Scores:
    metric = SaveLogits(str(tmp_path / 's.npz'), **kwargs)
    metric.dataset_meta = META
    for own in batches:
        metric.process(None, own)
    assert metric.evaluate(sum(map(len, batches)) if size is None else size) == {}
    return read_scores(tmp_path / 's.npz')


def draw(n=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.arange(n) % 3, 2 * torch.randn(n, 3, generator=generator)


def test_probabilities_become_their_logarithms_in_the_order_of_the_dataset(tmp_path):
    labels, logits = draw()
    places = [4, 2, 0, 6, 1, 3, 5]
    found = saved(tmp_path, batch(labels.tolist(), logits.softmax(1), places), facts={'config': 'a.py'}, split='val')
    order = np.argsort(places)
    np.testing.assert_allclose(found.logits, logits.log_softmax(1).numpy()[order], atol=1e-5)
    assert found.logits.dtype == np.float32 and found.labels.tolist() == labels.numpy()[order].tolist()
    assert found.images.tolist() == [f'{i}.png' for i in range(7)]
    assert found.classes.tolist() == [*NAMES] and found.class_counts.tolist() == META['class_counts']
    assert found.split == 'val' and found.facts['scores'] == 'log-probabilities'
    assert found.facts['config'] == 'a.py' and found.facts['protocol'] == 'standard' and found.facts['mmlt']
    with np.load(tmp_path / 's.npz', allow_pickle=False) as file:  # no object among them
        assert sorted(file.files) == ['class_counts', 'classes', 'facts', 'images', 'labels', 'logits', 'split']
        assert json.loads(str(file['facts'])) == found.facts
    assert [p.name for p in tmp_path.iterdir()] == ['s.npz']


class Pictures(BaseDataset):
    """Pixels in memory, as MNIST-LT and CIFAR have them; the last one is a file."""

    METAINFO = META

    def load_data_list(self):
        own = [{'img': np.full((2, 3, 3), i, dtype=np.uint8), 'gt_label': i % 3} for i in range(6)]
        return [*own, {'img_path': 'x.png', 'gt_label': 0}]


def test_pictures_without_files_are_known_by_their_pixels(tmp_path):
    labels, logits = draw()
    places = [4, 2, 0, 6, 1, 3, 5]
    samples = batch(labels.tolist(), logits.softmax(1), places)
    for sample, place in zip(samples, places):
        sample['img_path'] = 'x.png' if place == 6 else None
    metric = SaveLogits(str(tmp_path / 's.npz'))
    metric.dataset_meta = META
    metric.look_up(Pictures(ann_file=''))
    metric.process(None, samples)
    metric.evaluate(7)
    digests = [f'sha256:{hashlib.sha256(bytes([i] * 18)).hexdigest()[:32]}' for i in range(6)]
    assert read_scores(tmp_path / 's.npz').images.tolist() == [*digests, 'x.png']
    metric.process(None, [{k: v for k, v in sample.items() if k != 'sample_idx'} for sample in samples])
    metric.evaluate(7)  # which picture of the data set each one is, is not known
    assert sorted(read_scores(tmp_path / 's.npz').images.tolist()) == [*[''] * 6, 'x.png']


def test_padding_is_dropped_and_unlabelled_images_are_left_out(tmp_path):
    labels, logits = draw(6)
    own = [0, 1, -1, 0, 1, 2]
    found = saved(tmp_path, batch(own, logits.softmax(1)), size=5)
    assert found.labels.tolist() == [0, 1, 0, 1] and found.images is None
    assert found.facts['unlabelled_images'] == 1


def test_what_underflows_is_finite_and_counted(tmp_path):
    found = saved(tmp_path, batch([0, 1], torch.tensor([[0.0, 300.0, 1.0], [1.0, 2.0, 3.0]]).softmax(1)))
    assert np.isfinite(found.logits).all() and found.logits.min() == pytest.approx(-87.3365)
    assert found.facts['scores_at_floor'] == 2


def test_scores_outside_zero_and_one_are_logits():
    scores = np.array([[0.2, 0.8], [3.0, -1.0]])
    kind, logits, floored = as_logits(scores)
    assert (kind, floored) == ('logits', 0) and np.array_equal(logits, scores.astype(np.float32))
    half = torch.randn(5, 1000).softmax(1).half().float().numpy()
    assert as_logits(half)[0] == 'log-probabilities'


def test_places_that_come_twice_keep_the_gathered_order():
    assert in_order([(1, 'a'), (0, 'b')]) == [(0, 'b'), (1, 'a')]
    for twice in ([(1, 'a'), (0, 'b'), (0, 'c')], [(-1, 'a'), (-1, 'b')]):  # joined lists; no places
        assert in_order(twice) == twice


def test_what_cannot_be_saved_is_told(tmp_path):
    labels, logits = draw(3)
    scores = logits.softmax(1)
    with pytest.raises(InputError, match="but 's.pkl' is not a name of such a file: let it end with .npz"):
        SaveLogits('s.pkl')
    with pytest.raises(InputError, match=r"but '7.png' has 2 labels: .* leave --save-logits out"):
        saved(tmp_path, batch([[0, 1]], scores, [7]))
    with pytest.raises(InputError, match=r'these are between 0 and 1 with a sum of 1.8, as of several labels'):
        saved(tmp_path, batch([0], torch.tensor([[0.9, 0.8, 0.1]])))
    with pytest.raises(InputError, match=r"The scores of '1.png' are not finite"):
        saved(tmp_path, batch([0, 1], torch.tensor([[0.2, 0.3, 0.5], [float('nan')] * 3]), [0, 1]))
    with pytest.raises(InputError, match='but a picture has none'):
        saved(tmp_path, [DataSample().set_gt_label(0).set_pred_label(0).to_dict()])
    with pytest.raises(InputError, match='A test image has the label 5, but the model predicts 3 classes'):
        saved(tmp_path, batch([5], scores[:1]))
    with pytest.raises(InputError, match='SaveLogits knows training counts of 3 classes, but the model predicts 2'):
        saved(tmp_path, batch([0], torch.tensor([[0.5, 0.5]])))
    with pytest.raises(InputError, match='No test image has a label'):
        saved(tmp_path, batch([-1], scores[:1]))
    assert not any(tmp_path.iterdir())


def example(**changes) -> Scores:
    own = dict(logits=np.eye(3), labels=np.arange(3), classes=np.array(NAMES), class_counts=np.array([9, 5, 1]))
    return Scores(**{**own, 'split': 'test', **changes})


@pytest.mark.parametrize(
    ('changes', 'told'),
    [
        (dict(logits=np.full((3, 3), np.inf)), 'scores of 3 images .* are not finite, the first is that of number 0'),
        (dict(labels=np.array([0, 3, 1])), r'has the label 3, outside \[0, 3\)'),
        (dict(labels=np.array([0, -1, 1])), r'has the label -1, outside'),
        (dict(labels=np.arange(2)), r"scores of 3 images and 3 classes, but its 'labels' have the shape \(2,\)"),
        (dict(class_counts=np.array([1, 2])), "its 'class_counts' have"),
        (dict(class_counts=np.array([1, 2, -3])), 'has -3 training images of class 2'),
        (dict(images=np.array(['a'])), "its 'images' have"),
        (dict(logits=np.zeros((0, 3)), labels=np.arange(0)), 'scores of 0 images'),
        (dict(logits=np.zeros(3)), r"'logits' in .* is of type float32 and shape \(3,\)"),
    ],
)
def test_a_file_with_wrong_values_is_told(tmp_path, changes, told):
    write_scores(example(**changes), tmp_path / 's.npz')
    with pytest.raises(InputError, match=told):
        read_scores(tmp_path / 's.npz')


def test_other_files_are_told(tmp_path):
    path = tmp_path / 's.npz'
    with pytest.raises(InputError, match=r'There is no file of scores .*--save-logits FILE.npz'):
        read_scores(path)
    write_scores(example(), path)
    whole = path.read_bytes()
    for content in (b'', b'text', whole[:-40], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(InputError, match='is not a file of scores, or damaged'):
            read_scores(path)
    np.savez(path, logits=np.array([{}], dtype=object), allow_pickle=True)
    other = tmp_path / 'digit.png'
    other.write_bytes(b'\x89PNG of some length')
    with pytest.raises(
        InputError, match='is not a file of scores, or damaged: write it with'
    ):  # numpy advises to trust it
        read_scores(other)
    with pytest.raises(InputError, match='is not a file of scores, or damaged .*allow_pickle=False'):
        read_scores(path)
    np.savez(path, predictions=np.eye(3))
    with pytest.raises(InputError, match="has no 'logits', so it is not a file of scores"):
        read_scores(path)
    with open(path, 'wb') as file:
        np.save(file, np.eye(3))
    with pytest.raises(InputError, match="has no 'logits'"):
        read_scores(path)
