"""What makes a training another one, and what does not."""

import json

import numpy as np
import pytest
from mmengine.config import Config
from PIL import Image

from mmlt.engine.data_digest import data_digest
from mmlt.engine.identity import decisive, helpers
from mmlt.engine.stages import RunRecord

TEXT = """
max_epochs = 3
lr = 0.1
pipeline = [dict(type='Resize', scale=32), dict(type='PackInputs')]
unused = 7
custom_imports = dict(imports=['mmlt'])
default_scope = 'mmpretrain'
work_dir = 'w'
model = dict(type='ImageClassifier', backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-rn'))
train_dataloader = dict(
    batch_size=4, num_workers=1, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='mmlt.MNISTLT', split='train', pipeline=pipeline))
val_dataloader = dict(batch_size=4, num_workers=1, dataset=dict(type='mmlt.MNISTLT', split='test', pipeline=pipeline))
val_evaluator = [dict(type='mmlt.ShotAccuracy')]
test_dataloader = val_dataloader
test_evaluator = val_evaluator
val_cfg = dict()
test_cfg = dict()
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
optim_wrapper = dict(optimizer=dict(type='SGD', lr=lr), clip_grad=dict(max_norm=1.0))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, eta_min=0.0)]
auto_scale_lr = dict(base_batch_size=4, enable=True)
randomness = dict(seed=0)
default_hooks = dict(
    logger=dict(type='LoggerHook', interval=20), checkpoint=dict(type='CheckpointHook', interval=1),
    class_info=dict(type='mmlt.ClassInfoHook'), more=dict(type='mmlt.MOREHook', interval=20))
custom_hooks = [dict(type='EMAHook', momentum=0.1)]
"""


@pytest.fixture
def config(tmp_path):
    def read(options=None, text=TEXT, name='c.py'):
        (tmp_path / name).write_text(text)
        cfg = Config.fromfile(tmp_path / name)
        cfg.merge_from_dict(dict(options or {}))
        return cfg

    return read


@pytest.fixture
def record(config, tmp_path):
    """The record of a training of the config above, with changes."""

    def write(options=None):
        record = RunRecord(str(tmp_path / 'run'))
        record.begin(decisive(config(options)), {}, resumed=False)
        record.finish()
        return record

    return write


EMA = dict(type='EMAHook', momentum=0.002)
MATTERS = {
    # settings and hooks that are there
    'model': {'model.backbone.model': 'mmlt-tiny-vit'},
    'batch': {'train_dataloader.batch_size': 8},
    'sampler': {'train_dataloader.sampler.shuffle': False},
    'collate': {'train_dataloader.collate_fn': dict(type='my_collate')},
    'data': {'train_dataloader.dataset.split': 'test'},
    'transform': {'train_dataloader.dataset.pipeline': [dict(type='PackInputs')]},
    'length': {'train_cfg.max_epochs': 4},
    'rate': {'optim_wrapper.optimizer.lr': 0.2},
    'clipping': {'optim_wrapper.clip_grad.max_norm': 2.0},
    'accumulation': {'optim_wrapper.accumulative_counts': 2},
    'wrapper of another kind': {'optim_wrapper.type': 'ApexOptimWrapper'},
    'schedule': {'param_scheduler.0.eta_min': 0.01},
    'no schedule': {'param_scheduler': None},
    'scaled rate': {'auto_scale_lr.base_batch_size': 8},
    'rate that is not scaled': {'auto_scale_lr.enable': False},
    'seed': {'randomness.seed': 1},
    'averaging': {'custom_hooks': [EMA]},
    'no custom hooks': {'custom_hooks': None},
    # what was not there
    'start': {'load_from': 'some.pth'},
    'top-level data_preprocessor': {'data_preprocessor': dict(mean=[1.0] * 3, std=[2.0] * 3)},
    'averaging in default_hooks': {'default_hooks.ema': EMA},
    'sync_bn': {'sync_bn': 'torch'},
    'model wrapper': {'model_wrapper_cfg': dict(type='MMFullyShardedDataParallel')},
    'buffers of the model wrapper': {'model_wrapper_cfg': dict(type='MMDistributedDataParallel', broadcast_buffers=1)},
    'no schedule by a hook': {'default_hooks.param_scheduler': None},
    'the same order in every epoch': {'default_hooks.sampler_seed': None},
    'feature cache': {'default_hooks.feature_cache': dict(type='mmlt.FeatureCacheHook', views=2)},
    'classes of the validation': {'default_hooks.class_info.split': 'val'},
    'scope': {'default_scope': 'mmengine'},
    'runner': {'runner_type': 'mmlt.Runner'},
    'digest of a split': {'split_digest': 'abc'},
    'a variable that nothing in the file uses': {'unused': 8},
    'a key of tomorrow': {'tomorrow': dict(a=1)},
    'best by validation': {'default_hooks.checkpoint.save_best': 'auto'},
}
DOES_NOT = {
    'work_dir': {'work_dir': 'elsewhere'},
    'name': {'experiment_name': 'x', 'stage_name': 'y'},
    'logging': {'log_level': 'DEBUG', 'log_processor': dict(window_size=5), 'default_hooks.logger.interval': 1},
    'visualizer': {'visualizer': dict(type='UniversalVisualizer'), 'vis_backends': [dict(type='LocalVisBackend')]},
    'speed': {'env_cfg': dict(cudnn_benchmark=False), 'compile': True, 'find_unused_parameters': True},
    'memory': {'activation_checkpointing': ['backbone'], 'efficient_conv_bn_eval': ['backbone']},
    'launcher': {'launcher': 'pytorch', 'model_wrapper_cfg': dict(find_unused_parameters=True)},
    'workers': {
        'train_dataloader.num_workers': 8,
        'train_dataloader.persistent_workers': True,
        'train_dataloader.pin_memory': True,
        'train_dataloader.prefetch_factor': 4,
    },
    'plain collate': {'train_dataloader.collate_fn': dict(type='default_collate')},
    'amp': {'optim_wrapper.type': 'AmpOptimWrapper', 'optim_wrapper.loss_scale': 'dynamic'},
    'amp on a CPU': {'optim_wrapper.type': 'mmlt.BFloat16OptimWrapper'},
    'amp in half': {'optim_wrapper.type': 'mmengine.AmpOptimWrapper', 'optim_wrapper.dtype': 'float16'},
    'the usual wrapper by its name': {'optim_wrapper.type': 'OptimWrapper'},
    'fused optimizer': {'optim_wrapper.optimizer.fused': True},
    'resume': {'resume': True},
    'no validation': {'val_dataloader': None, 'val_cfg': None, 'val_evaluator': None},
    'other validation': {'train_cfg.val_interval': 3, 'val_evaluator': [dict(type='Accuracy')]},
    'other test': {'test_evaluator': [dict(type='Accuracy')], 'test_dataloader.batch_size': 9, 'tta_model': dict()},
    'checkpoints kept': {'default_hooks.checkpoint.interval': 2, 'default_hooks.checkpoint.max_keep_ckpts': 1},
    'hooks that look on': {
        'default_hooks.bar': dict(type='mmlt.ProgressBarHook'),
        'default_hooks.timer': dict(type='IterTimerHook'),
        'default_hooks.more.interval': 5,
    },
    'custom hooks that look on': {'custom_hooks': [dict(type='EMAHook', momentum=0.1), dict(type='EmptyCacheHook')]},
    'imports': {'custom_imports': dict(imports=['mmlt', 'my_metric'])},
    'usual hooks by their names': {'default_hooks.sampler_seed': dict(type='DistSamplerSeedHook')},
    'a variable whose effect is elsewhere': {'max_epochs': 9, 'lr': 0.5},
}


@pytest.mark.parametrize('options', MATTERS.values(), ids=MATTERS)
def test_another_training(config, record, options):
    """In both directions: set now, or set then."""
    assert record().difference(config(options)) is not None
    assert record(options).difference(config()) is not None
    assert record(options).difference(config(options)) is None


@pytest.mark.parametrize('options', DOES_NOT.values(), ids=DOES_NOT)
def test_the_same_training(config, record, options):
    assert record().difference(config(options)) is None
    assert record(options).difference(config()) is None


def test_a_hint_at_the_batch_is_no_setting(config, record):
    hint = {'auto_scale_lr.enable': False}
    for other in (16, None):
        options = {'auto_scale_lr.base_batch_size': other} if other else {'auto_scale_lr': None}
        assert record(hint).difference(config({**hint, **options} if other else options)) is None


BEST = {'default_hooks.checkpoint.save_best': 'auto'}


@pytest.mark.parametrize(
    'options',
    [
        {'default_hooks.checkpoint.rule': 'less'},
        {'train_cfg.val_interval': 3},
        {'val_evaluator': [dict(type='Accuracy')]},
        {'val_dataloader.dataset.split': 'train'},
    ],
)
def test_where_the_best_is_the_result_validation_decides(config, record, options):
    assert record(BEST).difference(config({**BEST, **options})) is not None
    assert record(BEST).difference(config({**BEST, 'val_dataloader.num_workers': 4})) is None
    stop = {'custom_hooks': [dict(type='EarlyStoppingHook', monitor='shot/all')]}
    assert (record(stop).difference(config({**stop, **options})) is None) == ('checkpoint' in str(options))


def test_without_validation_a_finished_best_stands_but_not_the_reverse(config, record):
    off = {'val_dataloader': None, 'val_cfg': None, 'val_evaluator': None}
    assert record(BEST).difference(config({**BEST, **off})) is None
    assert 'checkpoint was not set' in record({**BEST, **off}).difference(config(BEST))  # the last one was kept
    assert record({**BEST, **off}).difference(config({**BEST, **off})) is None


@pytest.mark.parametrize('hook', ['FeatureCacheHook', 'AnchorSelectionHook'])
def test_the_transform_that_makes_features_decides(config, record, hook):
    own = {'default_hooks.own': dict(type=f'mmlt.{hook}')}
    other = {'test_dataloader.dataset.pipeline': [dict(type='PackInputs')]}
    found = record(own).difference(config({**own, **other}))
    assert found.startswith('evaluated_pipeline')
    assert record(own).difference(config({**own, 'test_dataloader.batch_size': 1})) is None


def test_where_features_lie_does_not_matter(config, record):
    def cache(**options):
        return config({'default_hooks.feature_cache': dict(type='mmlt.FeatureCacheHook', views=3, **options)})

    run = record({'default_hooks.feature_cache': dict(type='mmlt.FeatureCacheHook', views=3)})
    assert run.difference(cache(directory='x', batch_size=7)) is None
    assert run.difference(cache(dtype='float16')) is not None


def test_variables_that_a_file_uses_itself(config, tmp_path):
    assert helpers(config()) == {'max_epochs', 'lr', 'pipeline'}
    renamed = TEXT.replace('pipeline = [', 'views = [').replace('pipeline=pipeline', 'pipeline=views')
    assert decisive(config(text=renamed, name='other.py')) == decisive(config())
    # of a base: by name, in a text, and one that its own file uses
    (tmp_path / 'base.py').write_text('a = 1\nb = 2\nc = 3\nd = 4\ntrain_cfg = dict(max_epochs=c)\n')
    heir = "_base_ = ['./base.py']\nmodel = dict(x=_base_.a, y={{_base_.b}}, z='c d')\n"
    assert helpers(config(text=heir, name='heir.py')) == {'a', 'b', 'c'}
    assert helpers(Config(dict(model=dict(type='X'), a=1))) == set()


def old_record(path, config, **changes):
    """As it was written before records had a version: of a few keys, with all that they held."""
    keys = ('model', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler', 'randomness', 'load_from')
    plain = json.loads(json.dumps(config.to_dict(), default=str))
    old = {key: plain.get(key) for key in (*keys, 'auto_scale_lr', 'custom_hooks')}
    for key in ('num_workers', 'persistent_workers', 'collate_fn'):
        old['train_dataloader'].pop(key, None)
    record = RunRecord(str(path))
    record._write(dict(id='x', finished=True, stages={}, config=dict(old, feature_cache=None, **changes)))
    return record


def test_records_of_earlier_versions_are_compared_by_what_they_tell(config, tmp_path):
    record = old_record(tmp_path, config())
    assert record.difference(config()) is None
    assert record.difference(config(DOES_NOT['amp'])) is None
    assert record.difference(config({'tomorrow': 1})) is None  # they never looked
    assert record.difference(config({'optim_wrapper.optimizer.lr': 0.2})) is not None
    assert record.difference(config({'custom_hooks': None})) is not None
    cache = {'default_hooks.feature_cache': dict(type='mmlt.FeatureCacheHook', views=2)}
    assert record.difference(config(cache)).startswith('default_hooks.feature_cache was not set')
    assert record.difference(config(BEST)) == "checkpoint was not set and is now {'save_best': 'auto'}"
    assert record.difference(config({'split_digest': 'abc'})) is not None
    best = old_record(tmp_path, config(), checkpoint=dict(save_best='auto', rule=None))
    assert best.difference(config(BEST)) is None
    with_cache = old_record(tmp_path, config(), **{'split_digest': 'abc'})
    assert with_cache.difference(config()) is not None


def test_resuming_keeps_the_start(config, tmp_path):
    record = RunRecord(str(tmp_path / 'run'))
    start = config({'load_from': 'first.pth'})
    record.begin(decisive(start), {}, resumed=False)
    record.begin(decisive(config({'load_from': 'run/epoch_1.pth'})), {}, resumed=True)
    assert record.difference(start) is None
    record.begin(decisive(config()), {}, resumed=False)
    record.begin(decisive(config({'load_from': 'run/epoch_1.pth'})), {}, resumed=True)
    assert record.difference(config()) is None


@pytest.fixture
def pictures(tmp_path):
    def folder(name, files=('a/1.png', 'a/2.png', 'b/1.png')):
        for i, file in enumerate(files):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(path)
        (tmp_path / name / 'train.txt').write_text(''.join(f'{f} {"ab".index(f[0])}\n' for f in files))
        return dict(
            type='mmlt.LongTailedDataset', data_root=str(tmp_path / name), ann_file='train.txt', classes=['a', 'b']
        )

    return folder


def test_moved_data_are_the_same_and_other_data_are_not(config, tmp_path, pictures):
    from mmpretrain.registry import DATASETS

    def asked(**dataset):
        return config({'train_dataloader.dataset': dict(dataset, _delete_=True, pipeline=[])})

    one = pictures('one')
    record = RunRecord(str(tmp_path / 'run'))
    cfg = asked(**one)
    record.begin(decisive(cfg), {}, resumed=False, data=data_digest(DATASETS.build(dict(one, pipeline=[]))))
    assert record.difference(cfg) is None
    assert record.difference(asked(**pictures('moved'))) is None
    other = asked(**pictures('other', files=('a/1.png', 'b/2.png', 'b/1.png')))
    assert record.difference(other).endswith('where other data lie')
    assert record.difference(asked(**{**pictures('moved'), 'classes': ['a', 'c']})) is not None
    assert record.difference(asked(**{**one, 'data_root': '/nowhere'})).endswith('where the data cannot be read')
    # a record that does not know its data
    record.begin(decisive(cfg), {}, resumed=False)
    assert 'data_root was' in record.difference(asked(**pictures('moved')))


@pytest.mark.parametrize('change', ['label', 'name', 'class', 'texts', 'array'])
def test_digest_of_data(tmp_path, change):
    class Data:
        def __init__(self, label=0, name='a/1.png', classes=('x', 'y'), text='one', array=0):
            path = tmp_path / f'texts{text}'
            path.mkdir(exist_ok=True)
            (path / 'x.txt').write_text(text)
            self.metainfo = dict(classes=classes, class_texts=str(path))
            self.rows = [dict(img_path=f'/{id(self)}/{name}', gt_label=label), dict(img=np.array([array]), gt_label=1)]

        def __len__(self):
            return len(self.rows)

        def get_data_info(self, i):
            return self.rows[i]

    changed = dict(label=1, name='a/2.png', array=1)
    changed.update({'class': ('x', 'z'), 'texts': 'two'})
    argument = {'class': 'classes', 'texts': 'text'}.get(change, change)
    assert data_digest(Data()) == data_digest(Data())
    assert data_digest(Data()) != data_digest(Data(**{argument: changed[change]}))
    assert data_digest(object()) is None
