"""Classes and counts of the built datasets, in the runner, the losses, the metrics and the tools."""

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.runner import Runner as MMEngineRunner
from PIL import Image
from torch.utils.data import Subset

from mmlt import InputError
from mmlt.checkpoints import read_checkpoint
from mmlt.datasets import LongTailedDataset
from mmlt.engine import Runner
from mmlt.registry import DATASETS
from mmlt.utils.class_info import class_info
from mmlt.utils.classes import check_same_classes, find_twins
from mmlt.utils.labels import build_dataset, dataset_positives

NAMES = ('ant', 'bee', 'cat')


def counted(dataset):
    info = class_info(dataset)
    return list(info.counts), info.num_images


@DATASETS.register_module()
class LabelsInInfo(BaseDataset):
    """A foreign dataset that has neither get_gt_labels nor get_cat_ids."""

    METAINFO = dict(classes=NAMES)

    def load_data_list(self):
        return [dict(gt_label=c) for c in (0, 0, 1, 2, 2, 2)]


@DATASETS.register_module()
class ScoresInInfo(LabelsInInfo):
    """One that has several labels an image, as zeros and ones."""

    def load_data_list(self):
        return [dict(gt_score=s) for s in ([1, 1, 0], [0, 0, 0], [0, 1, -1])]


@pytest.fixture
def lists(tmp_path):
    """A train list with 30, 30 and 10 pictures, and a test list with its classes in another order."""
    rng = np.random.default_rng(3)
    lines, tests = [], []
    for c, (name, number) in enumerate(zip(NAMES, (30, 30, 10))):
        (tmp_path / name).mkdir()
        pixels = np.full((8, 8, 3), 20, np.uint8)
        pixels[..., c] = 230
        Image.fromarray(pixels).save(tmp_path / name / '0.png')
        lines += [f'{name}/0.png {c}'] * number
        tests.append(f'{name}/0.png {(c + 1) % 3}')
    lines = [lines[i] for i in rng.permutation(70)]
    (tmp_path / 'train.txt').write_text('\n'.join(lines))
    (tmp_path / 'more.txt').write_text('\n'.join(lines[:8]))
    (tmp_path / 'test.txt').write_text('\n'.join(f'{n}/0.png {c}' for c, n in enumerate(NAMES)))
    (tmp_path / 'turned.txt').write_text('\n'.join(tests))
    return tmp_path


def dataset(root, ann='train.txt', **kwargs):
    pipeline = [dict(type='mmlt.LoadPicture'), dict(type='PackInputs')]
    base = dict(type='mmlt.LongTailedDataset', ann_file=ann, data_root=str(root), classes=list(NAMES))
    return {**base, 'pipeline': pipeline, **kwargs}


def naive(built) -> list[int]:
    return np.bincount([built.get_cat_ids(i)[0] for i in range(len(built))], minlength=3).tolist()


def joined(root):
    return dict(type='ConcatDataset', datasets=[dataset(root), dataset(root, 'more.txt')])


def test_counts_are_those_of_the_built_dataset(lists):
    fold = build_dataset(dict(type='mmpretrain.KFoldDataset', dataset=dataset(lists), fold=0, num_splits=3, seed=1))
    assert counted(fold) == (naive(fold), len(fold)) and len(fold) == 47
    part = build_dataset(dataset(lists, indices=8))
    assert counted(part) == (naive(part), 8) and part.metainfo['class_counts'] == [30, 30, 10]
    both = build_dataset(joined(lists))
    few = naive(part)
    assert counted(both)[0] == [30 + few[0], 30 + few[1], 10 + few[2]]
    repeated = build_dataset(dict(type='RepeatDataset', times=3, dataset=dataset(lists, indices=8)))
    assert counted(repeated)[0] == [3 * n for n in few]
    balanced = build_dataset(dict(type='ClassBalancedDataset', oversample_thr=0.5, dataset=dataset(lists)))
    assert counted(balanced)[0] == naive(balanced) != [30, 30, 10]
    nested = build_dataset(dict(type='RepeatDataset', times=2, dataset=joined(lists)))
    assert counted(nested)[0] == [2 * n for n in counted(both)[0]]
    assert counted(Subset(both, [0, 1, 75])) == (
        np.bincount([dict(zip(*dataset_positives(both)))[i] for i in (0, 1, 75)], minlength=0).tolist(),
        3,
    )


def test_counts_of_foreign_datasets():
    plain = LabelsInInfo()
    assert counted(plain) == ([2, 1, 3], 6)
    assert counted(Subset(plain, [5, 0])) == ([1, 0, 1], 2)
    several = ScoresInInfo()
    assert counted(several) == ([1, 2, 0], 3)
    assert dataset_positives(several)[0].tolist() == [0, 0, 2]
    counts, number = counted(build_dataset(dict(type='RepeatDataset', times=2, dataset=dict(type='mmlt.ScoresInInfo'))))
    assert (counts, number) == ([2, 4, 0], 6)


def test_counts_of_a_dataset_without_labels_are_those_that_it_tells():
    class Mute(torch.utils.data.Dataset):
        metainfo = dict(classes=NAMES, class_counts=[5, 2, 1])

        def __len__(self):
            return 8

    assert counted(Mute()) == ([5, 2, 1], None)


def test_unknown_labels_count_for_nobody():
    class Unknown(LabelsInInfo):
        def load_data_list(self):
            return [dict(gt_label=c) for c in (0, -1, 2)]

    assert counted(Unknown()) == ([1, 0, 1], 3)
    assert dataset_positives(Unknown())[0].tolist() == [0, 2]


def config(root, train, test='test.txt', loss='mmlt.BalancedSoftmaxLoss', classes=NAMES, **changes):
    evaluated = dataset(root, test, train_ann_file='train.txt', classes=list(classes))
    cfg = dict(
        default_scope='mmpretrain',
        runner_type='mmlt.Runner',
        work_dir=str(root / 'run'),
        model=dict(
            type='ImageClassifier',
            backbone=dict(type='mmlt.CIFARResNet', depth=8, base_channels=4),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=16, loss=dict(type=loss)),
        ),
        train_dataloader=dict(
            batch_size=4, num_workers=0, dataset=train, sampler=dict(type='DefaultSampler', shuffle=True)
        ),
        val_dataloader=dict(
            batch_size=3, num_workers=0, dataset=evaluated, sampler=dict(type='DefaultSampler', shuffle=False)
        ),
        val_evaluator=dict(type='mmlt.ShotAccuracy'),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.01)),
        train_cfg=dict(by_epoch=False, max_iters=1, val_interval=1),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        val_cfg=dict(),
        log_level='WARNING',
        **changes,
    )
    cfg['test_dataloader'], cfg['test_evaluator'], cfg['test_cfg'] = cfg['val_dataloader'], cfg['val_evaluator'], {}
    return Config(cfg)


HOOK = dict(custom_hooks=[dict(type='mmlt.ClassInfoHook')])


@pytest.mark.parametrize('kind', ['fold', 'indices', 'concat'])
def test_losses_metrics_and_checkpoints_know_the_counts_of_what_is_trained_on(lists, kind):
    train = dict(
        fold=dict(type='mmpretrain.KFoldDataset', dataset=dataset(lists), fold=0, num_splits=3, seed=1),
        indices=dataset(lists, indices=20),
        concat=joined(lists),
    )[kind]
    runner = Runner.from_cfg(config(lists, train, **HOOK))
    runner.train()
    expected = counted(runner.train_dataloader.dataset)[0]
    assert min(expected) > 0 and expected != [30, 30, 10]
    assert runner.model.head.loss_module.class_counts.tolist() == expected
    metric = runner.val_evaluator.metrics[0]
    assert [c['train_images'] for c in metric.report['per_class']] == expected
    meta = read_checkpoint(lists / 'run/iter_1.pth')['meta']['dataset_meta']
    assert meta['class_counts'] == expected
    # A test alone counts the train dataset of its config.
    again = Runner.from_cfg(config(lists, train, load_from=str(lists / 'run/iter_1.pth'), **HOOK))
    again.test()
    assert [c['train_images'] for c in again.test_evaluator.metrics[0].report['per_class']] == expected


def test_a_class_that_is_not_trained_is_refused_by_losses_of_counts(lists):
    train = dataset(lists, indices=list(range(8)))
    (lists / 'train.txt').write_text('\n'.join(f'{NAMES[c]}/0.png {c}' for c in [0] * 7 + [1, 2]))
    with pytest.raises(InputError, match='class 2 has no training images'):
        Runner.from_cfg(config(lists, train, **HOOK)).train()
    runner = Runner.from_cfg(config(lists, train, loss='CrossEntropyLoss', **HOOK))
    runner.train()  # needs no counts
    assert [c['train_images'] for c in runner.val_evaluator.metrics[0].report['per_class']] == [7, 1, 0]


# Class lists


@pytest.mark.parametrize('hooks', [{}, HOOK], ids=['no hook', 'hook'])
@pytest.mark.parametrize('runner', [Runner, MMEngineRunner])
def test_another_order_of_classes_is_refused_for_every_head(lists, hooks, runner):
    if runner is MMEngineRunner and not hooks:
        pytest.skip('nothing of this project runs before the metric')
    cfg = config(lists, dataset(lists), 'turned.txt', 'CrossEntropyLoss', ('cat', 'ant', 'bee'), **hooks)
    with pytest.raises(InputError, match=r"class 0 is 'ant' in train and 'cat' in val"):
        runner.from_cfg(cfg).train()


def test_the_metric_alone_refuses_another_order(lists):
    cfg = config(lists, dataset(lists), 'turned.txt', 'CrossEntropyLoss', ('cat', 'ant', 'bee'))
    runner = MMEngineRunner.from_cfg(cfg)
    with pytest.raises(InputError, match=r"class 0 is 'ant' in the train dataset and 'cat' in the tested one"):
        runner.val()


def test_a_checkpoint_of_another_order_is_refused(lists):
    Runner.from_cfg(config(lists, dataset(lists), loss='CrossEntropyLoss')).train()
    path = str(lists / 'run/iter_1.pth')
    turned = ('cat', 'ant', 'bee')
    cfg = config(
        lists, dataset(lists, 'turned.txt', classes=turned), 'turned.txt', 'CrossEntropyLoss', turned, load_from=path
    )
    for act in ('test', 'train'):
        with pytest.raises(InputError, match=r"0 is 'ant' in '.*iter_1\.pth' and 'cat' in the (test|train) dataset"):
            getattr(Runner.from_cfg(cfg), act)()
    checkpoint = read_checkpoint(path)
    del checkpoint['meta']['dataset_meta']  # as published weights: nothing to compare
    torch.save(checkpoint, lists / 'bare.pth')
    cfg.load_from = str(lists / 'bare.pth')
    Runner.from_cfg(cfg).test()


def test_a_head_of_another_number_of_classes_is_refused_before_the_training(lists):
    cfg = config(lists, dataset(lists), loss='CrossEntropyLoss')
    cfg.model.head.num_classes = 4
    with pytest.raises(InputError, match=r'num_classes=4, but the dataset has 3 classes.*num_classes=3'):
        Runner.from_cfg(cfg).train()


def test_labels_that_a_foreign_loss_does_not_know_are_refused(lists):
    train = dict(
        type='CustomDataset',
        data_root=str(lists),
        ann_file='train.txt',
        classes=list(NAMES),
        pipeline=[dict(type='LoadImageFromFile'), dict(type='PackInputs')],
    )
    (lists / 'train.txt').write_text('ant/0.png 0\nbee/0.png 1\ncat/0.png -1\n')
    cfg = config(lists, train, loss='CrossEntropyLoss')
    for name in ('val', 'test'):
        cfg[f'{name}_dataloader'].dataset.train_ann_file = 'test.txt'
    with pytest.raises(InputError, match='Entry 3 of the train dataset has the label -1.*CrossEntropyLoss'):
        Runner.from_cfg(cfg).train()


def test_two_classes_of_one_name_are_refused(lists):
    for names in (['ant', 'bee', 'ant'], ['ant', ' ant', 'cat'], ['a  b', 'c', 'a b']):
        with pytest.raises(InputError, match='The class list: classes . and . have one name'):
            LongTailedDataset('train.txt', data_root=str(lists), classes=names)
    assert find_twins(['ant', 'bee', 'ant']) == (0, 2) and find_twins(NAMES) is None
    train = dict(type='CustomDataset', ann_file='train.txt', data_root=str(lists), classes=['ant', 'bee', 'ant'])
    train['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
    cfg = config(lists, train, loss='CrossEntropyLoss')
    cfg.val_dataloader = cfg.val_evaluator = cfg.val_cfg = None
    with pytest.raises(InputError, match="The train dataset: classes 0 and 2 have one name, 'ant'"):
        Runner.from_cfg(cfg).train()


def test_twins_of_a_published_list_are_told_once(tmp_path, caplog):
    Image.new('RGB', (4, 4)).save(tmp_path / 'a.png')
    (tmp_path / 'list.txt').write_text('\n'.join(f'a.png {c}' for c in range(1000)))
    assert len(LongTailedDataset('list.txt', data_root=str(tmp_path), classes='imagenet')) == 1000
    from mmlt.engine.classes import _tell_twins, check_names

    _tell_twins.cache_clear()
    names = LongTailedDataset('list.txt', data_root=str(tmp_path), classes='imagenet').metainfo['classes']
    for _ in range(2):
        check_names(names, None, 'The train dataset')
    assert _tell_twins.cache_info().misses == 1 and _tell_twins.cache_info().hits == 1


def test_numbers_stand_for_no_names():
    check_same_classes({'a': ('0', '1'), 'b': ('cat', 'dog'), 'c': ['cat', 'dog']})
    with pytest.raises(InputError, match="class 0 is 'cat' in b and 'dog' in c"):
        check_same_classes({'a': ('0', '1'), 'b': ('cat', 'dog'), 'c': ['dog', 'cat']})
    with pytest.raises(InputError, match="class 0 is '0' in a and '1' in b"):
        check_same_classes({'a': ('0', '1'), 'b': ('1', '0')})
    with pytest.raises(InputError, match='a 2, b 3 classes'):
        check_same_classes({'a': ('0', '1'), 'b': ('1', '0', '2')})
