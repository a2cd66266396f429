"""Labels that are not to be scored: from annotations to samples, losses of MMPretrain's heads, and MORE."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmpretrain.datasets import VOC, KFoldDataset
from mmpretrain.models import build_classifier
from mmpretrain.structures import DataSample
from PIL import Image
from torch.utils.data import Subset

from mmlt import InputError
from mmlt.datasets import LongTailedMultiLabel
from mmlt.datasets.unscored import mark_unscored
from mmlt.engine import Runner
from mmlt.evaluation.targets import scored_targets
from mmlt.models.losses.common import leave_out_unscored
from mmlt.registry import MODELS

# Objects of every picture: class, whether difficult. The second sheep of 000003 is not difficult.
OBJECTS = {
    '000001': [('person', 0), ('dog', 1)],
    '000002': [('dog', 0)],
    '000003': [('sheep', 1), ('sheep', 0), ('person', 1)],
    '000004': [('sheep', 1)],
}
CLASSES = ('person', 'dog', 'sheep')
TARGETS = [[1, -1, 0], [0, 1, 0], [-1, 0, 1], [0, 0, -1]]
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]


@pytest.fixture
def voc(tmp_path):
    for folder in ('JPEGImages', 'Annotations', 'ImageSets/Main'):
        (tmp_path / folder).mkdir(parents=True)
    for name, objects in OBJECTS.items():
        Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(tmp_path / 'JPEGImages' / f'{name}.jpg')
        xml = ''.join(f'<object><name>{n}</name><difficult>{d}</difficult></object>' for n, d in objects)
        (tmp_path / 'Annotations' / f'{name}.xml').write_text(f'<annotation>{xml}</annotation>')
    for split in ('trainval', 'test'):
        (tmp_path / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(OBJECTS) + '\n')
    return tmp_path


def test_targets_of_a_sample():
    assert scored_targets({'gt_label': [0, 2]}, 3).tolist() == [1, 0, 1]
    assert scored_targets({'gt_label': torch.tensor([2]), 'gt_label_difficult': [1, 2]}, 3).tolist() == [0, -1, 1]
    assert scored_targets({'gt_score': torch.tensor([1, -1, float('nan')])}, 3).tolist() == [1, -1, -1]
    assert scored_targets({'gt_score': [0.25, 0, 0], 'gt_label_difficult': [0, 1]}, 3).tolist() == [0.25, -1, 0]
    assert scored_targets({'gt_label': []}, 2).tolist() == [0, 0]


@pytest.mark.parametrize('label', [-1, 3, float('nan')])
def test_a_label_that_is_no_class_is_named_with_its_picture(label):
    with pytest.raises(InputError, match=r"gt_label of 'a\.jpg' has the label .*, outside \[0, 3\)"):
        scored_targets({'gt_label': [0, label], 'img_path': 'a.jpg'}, 3)
    with pytest.raises(InputError, match='gt_label_difficult of picture 7'):
        scored_targets({'gt_label': [0], 'gt_label_difficult': [label], 'sample_idx': 7}, 3)
    with pytest.raises(InputError, match='gt_score of a picture is of 2 classes, but there are 3'):
        scored_targets({'gt_score': [0, 1]}, 3)


def scores_of(dataset):
    return [dataset[i]['data_samples'].gt_score.tolist() for i in range(len(dataset))]


@pytest.mark.parametrize('wrap', [
    lambda d: d,
    lambda d: RepeatDataset(d, 2),
    lambda d: ConcatDataset([d, d]),
    lambda d: Subset(d, [0, 1, 2, 3]),
])  # fmt: skip
def test_samples_of_mmpretrains_voc(voc, wrap):
    dataset = wrap(VOC(str(voc), split='test', test_mode=True, metainfo=dict(classes=CLASSES), pipeline=PIPELINE))
    for _ in range(2):
        mark_unscored(dataset)
    assert scores_of(dataset)[:4] == TARGETS


def test_a_loader_of_the_runner_marks(voc):
    data = dict(type='mmpretrain.VOC', data_root=str(voc), metainfo=dict(classes=CLASSES), pipeline=PIPELINE)
    folded = dict(type='mmpretrain.KFoldDataset', dataset=data, fold=0, num_splits=2)
    loader = Runner.build_dataloader(
        dict(dataset=folded, batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False))
    )
    assert isinstance(loader.dataset, KFoldDataset)
    found = [s.gt_score.tolist() for batch in loader for s in batch['data_samples']]
    assert len(found) == 2 and all(s in TARGETS for s in found)


def test_difficult_objects_of_our_dataset(voc):
    where = dict(data_root=str(voc), ann_file='Annotations', img_ids='ImageSets/Main/test.txt', classes=CLASSES)
    build = lambda **kwargs: LongTailedMultiLabel(**where, data_prefix='JPEGImages', pipeline=PIPELINE, **kwargs)  # noqa: E731
    positive, ignore = build(), build(difficult='ignore')
    assert positive.metainfo['class_counts'] == [2, 2, 2] and ignore.metainfo['class_counts'] == [1, 1, 1]
    assert positive[0]['data_samples'].gt_label.tolist() == [0, 1] and 'gt_score' not in positive[0]['data_samples']
    assert scores_of(ignore) == TARGETS
    with pytest.raises(InputError, match="difficult is 'no'; choose 'positive' or 'ignore'"):
        build(difficult='no')


def test_ignored_objects_of_coco(voc):
    objects = [(1, 1, 0), (1, 2, 1), (2, 2, 0), (2, 1, 1), (2, 1, 0), (1, 3, 0)]  # picture, category, ignore
    content = dict(
        images=[dict(id=i, file_name=f'00000{i}.jpg') for i in (1, 2)],
        categories=[dict(id=i, name=name) for i, name in enumerate(CLASSES, 1)],
        annotations=[dict(image_id=i, category_id=c, ignore=g, area=9, bbox=[0, 0, 3, 3]) for i, c, g in objects],
    )
    (voc / 'instances.json').write_text(json.dumps(content))
    dataset = LongTailedMultiLabel('instances.json', data_root=str(voc), data_prefix='JPEGImages', pipeline=PIPELINE)
    assert dataset.metainfo['class_counts'] == [2, 1, 1]
    assert scores_of(dataset) == [[1, -1, 1], [1, 1, 0]]


STOCK = [
    dict(type='CrossEntropyLoss', use_sigmoid=True),
    dict(type='AsymmetricLoss', gamma_pos=0.0, gamma_neg=4.0, clip=0.05),
    dict(type='FocalLoss'),
]


@pytest.mark.parametrize('loss', STOCK, ids=lambda c: c['type'])
@pytest.mark.parametrize('mark', [-1.0, float('nan')])
def test_mmpretrains_losses_leave_them_out(loss, mark):
    loss['loss_weight'] = 2.0
    head = MODELS.build(ConfigDict(type='mmpretrain.MultiLabelClsHead', loss=loss))
    leave_out_unscored(torch.nn.ModuleList([head]))
    z = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    y = torch.tensor([[1.0, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0]])
    marked = y.clone()
    marked[:, 2] = mark
    value = head.loss((z,), [DataSample().set_gt_score(t) for t in marked])['loss']
    (gradient,) = torch.autograd.grad(value, z)
    assert (gradient[:, 2] == 0).all() and (gradient[:, [0, 1, 3]] != 0).all()
    rest = [0, 1, 3]
    without = head.loss((z[:, rest],), [DataSample().set_gt_score(t[rest]) for t in y])['loss']
    assert value.item() == pytest.approx(without.item(), rel=1e-6)


def test_more_weighs_by_known_labels_only():
    classifier = dict(
        type='ImageClassifier',
        backbone=dict(type='mmlt.CIFARResNet', depth=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='MultiLabelLinearClsHead', num_classes=3, in_channels=64),
    )
    model = build_classifier(dict(type='mmlt.MORE', classifier=classifier, multi_label='sample'))
    z = torch.zeros(2, 3)
    samples = [DataSample().set_gt_score([1.0, -1, 0]), DataSample().set_gt_score([float('nan'), 0, 1])]
    assert model._targets(samples, z).tolist() == [[1, 0, 0], [0, 0, 1]]
    model.classifier.head = torch.nn.Identity()
    assert model._targets([DataSample().set_gt_label(c) for c in (2, -1)], z).tolist() == [[0, 0, 1], [0, 0, 0]]
