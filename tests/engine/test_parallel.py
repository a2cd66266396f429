"""Trainings in parts (FSDP) against DDP, in the same two processes, and what they leave."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmlt import InputError
from mmlt.engine.parallel import blocks, parallel_settings

MODEL = 'mmlt-tiny-vit'
WORKER = Path(__file__).parent / 'trainings.py'


def launch(runs, env, processes=2, *options):
    """Train all of them, one after the other, in one launch."""
    Path('runs.json').write_text(json.dumps(runs))
    command = [sys.executable, '-m', 'torch.distributed.run', f'--nproc_per_node={processes}']
    command += [f'--master_port={env["PORT"]}', str(WORKER), 'runs.json', *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, env=env)
    Path('/tmp/fx/out.txt').write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-4000:]
    return done.stdout + done.stderr


def steps(folder):
    return torch.load(Path(folder) / 'steps.pth', weights_only=True)


def checkpoint(folder, epoch=5):
    return torch.load(Path(folder) / f'epoch_{epoch}.pth', weights_only=True)


@pytest.fixture
def methods(two_stages, clip_file) -> Path:
    """a.py, cvlp.py, lgr.py, lift.py and more.py, of five epochs of one step of eight pictures each."""
    clip = f"model='{MODEL}', pretrained='{clip_file}'"
    (two_stages / 'texts').mkdir()
    for name in ('apple', 'pear', 'plum'):
        (two_stages / 'texts' / f'{name}.txt').write_text(f'A {name} grows on trees. It is sweet, the {name}.')
    common = """
_base_ = ['./a.py']
texts = dict(dataset=dict(class_texts='texts'))
train_dataloader, val_dataloader, test_dataloader = texts, texts, texts
del texts
"""
    (two_stages / 'cvlp.py').write_text(
        f"""{common}
model = dict(
    _delete_=True, type='mmlt.CVLP', templates='a photo of the {{}}',
    backbone=dict(type='mmlt.OpenCLIPVision', {clip}), text=dict(type='mmlt.OpenCLIPText', {clip}),
    texts=dict(type='mmlt.ClassTexts', templates='a photo of the {{}}'), teacher=dict({clip}),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
default_hooks = dict(anchors=dict(type='mmlt.AnchorSelectionHook', num_anchors=4, images_per_class=2))
"""
    )
    (two_stages / 'lgr.py').write_text(
        f"""{common}
model = dict(
    _delete_=True, type='ImageClassifier', backbone=dict(type='mmlt.OpenCLIPVision', {clip}),
    head=dict(type='mmlt.LGRHead', num_classes=3, in_channels=64, anchors='cvlp-ddp/anchors.safetensors',
              learn_logit_scale=True),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
"""
    )
    (two_stages / 'lift.py').write_text(
        f"""
_base_ = ['./a.py']
model = dict(
    backbone=dict(projection=False, adapter=dict(type='mmlt.AdaptFormer', bottleneck=4)),
    head=dict(_delete_=True, type='mmlt.CosineClsHead', num_classes=3, in_channels=64,
              text=dict(type='mmlt.OpenCLIPText', {clip}), loss=dict(type='mmlt.LogitAdjustedLoss')))
"""
    )
    (two_stages / 'more.py').write_text(
        """
_base_ = ['./a.py']
classifier = dict(type='ImageClassifier',
    backbone=dict(type='mmlt.OpenCLIPVision', model='mmlt-tiny-rn'),
    head=dict(type='LinearClsHead', num_classes=3, in_channels=128),
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
model = dict(_delete_=True, type='mmlt.MORE', classifier=classifier, peak=0.5)
optim_wrapper = dict(clip_grad=dict(max_norm=5))
default_hooks = dict(more=dict(type='mmlt.MOREHook', interval=2))
del classifier
"""
    )
    return two_stages


SETTINGS = {'train_cfg.max_epochs': 5, 'train_cfg.val_interval': 5, 'param_scheduler': None, 'randomness.seed': 3,
            'default_hooks.checkpoint.max_keep_ckpts': -1}
ADAM = {'optim_wrapper.optimizer': dict(type='AdamW', lr=1e-3, weight_decay=0.01, _delete_=True)}
CASES = {
    'cvlp': ADAM,
    'a': {},
    'lgr': ADAM,
    'lift': {},
    'more': {},
}


def runs_of(name, options, **more):
    return [
        dict(config=f'{name}.py', work_dir=f'{name}-{kind}', options={**SETTINGS, **options, **more, 'parallel': kind})
        for kind in ('ddp', 'fsdp')
    ]


def test_all(methods, launcher_env):
    out = launch([run for name, options in CASES.items() for run in runs_of(name, options)], launcher_env)
    print(out[-3000:])
    for name in CASES:
        a, b = steps(f'{name}-ddp'), steps(f'{name}-fsdp')
        print(name, a['losses'][-1], b['losses'][-1], b['kinds'])
        for x, y in zip(a['gradients'], b['gradients']):
            if x is None or y is None: print('None', x is None, y is None); continue
            assert x.shape == y.shape
            if (x-y).abs().max() > 1e-6: print(x.shape, (x-y).abs().max(), x.abs().max())
        p, q = checkpoint(f'{name}-ddp')['state_dict'], checkpoint(f'{name}-fsdp')['state_dict']
        assert list(p) == list(q)
        print(max((float((p[k].double()-q[k].double()).abs().max()), k) for k in p if p[k].numel()))
    assert 0


def test_scratch(methods, launcher_env):
    full = {'model.head.text.shorten': False}
    blk = 'backbone.visual.transformer.resblocks.'
    cases = {
        'ema': {'custom_hooks': [dict(type='EMAHook')], 'train_cfg.val_interval': 2, 'optim_wrapper.clip_grad': dict(max_norm=0.5), **full,
            'optim_wrapper.optimizer.foreach': True},
        'fused': {**ADAM, 'optim_wrapper.optimizer': dict(type='AdamW', lr=1e-3, fused=True, _delete_=True), 'model.backbone.grad_checkpointing': True,
            'model.head.text.grad_checkpointing': True, **full, 'model.head.logit_scale': 'pretrained', 'model.head.learn_logit_scale': True},
        'ac': {'activation_checkpointing': ['backbone.visual.layer1', 'backbone.visual.layer3'], 'model.backbone.model': 'mmlt-tiny-rn', 'model.backbone.pretrained': None,
             'model.head.text.model': 'mmlt-tiny-rn', 'model.head.text.pretrained': None, 'model.head.text.grad_checkpointing': True},
        'bf16': {'optim_wrapper.type': 'mmlt.BFloat16OptimWrapper', 'train_cfg.val_interval': 2},
        'acc': {'optim_wrapper.accumulative_counts': 2, 'optim_wrapper.clip_grad': dict(max_norm=0.5), 'model.head.logit_scale': 'pretrained', 'model.head.learn_logit_scale': True, **full},
    }
    runs = []
    for name, options in cases.items():
        for kind in ('ddp', 'fsdp'):
            runs.append(dict(config='a.py', work_dir=f'{name}-{kind}', options={**SETTINGS, **options, 'parallel': kind}))
    out = launch(runs, launcher_env, 2, '--as-on-a-gpu')
    for name in cases:
        a, b = steps(f'{name}-ddp'), steps(f'{name}-fsdp')
        print(name, a['losses'], b['losses'])
        for x, y in zip(a['gradients'], b['gradients']):
            if x is None or y is None: 
                if (x is None) != (y is None): print('None', x is None, y is None)
                continue
            assert x.shape == y.shape
            if (x-y).abs().max() > 1e-6: print(x.shape, (x-y).abs().max(), x.abs().max())
        p, q = checkpoint(f'{name}-ddp')['state_dict'], checkpoint(f'{name}-fsdp')['state_dict']
        assert list(p) == list(q)
        print(max((float((p[k].double()-q[k].double()).abs().max()), k) for k in p if p[k].numel()))
        if name == 'ema':
            p, q = checkpoint(f'{name}-ddp')['ema_state_dict'], checkpoint(f'{name}-fsdp')['ema_state_dict']
            assert list(p) == list(q)
            print(max((float((p[k].double()-q[k].double()).abs().max()), k) for k in p if p[k].numel()))
        p, q = checkpoint(f'{name}-ddp')['optimizer'], checkpoint(f'{name}-fsdp')['optimizer']
        assert p['param_groups'] == q['param_groups']
        for i in p['state']:
            assert list(p['state'][i]) == list(q['state'][i])
            for k in p['state'][i]:
                u, v = p['state'][i][k], q['state'][i][k]
                if u is None: assert v is None; continue
                assert type(u) == type(v) and u.shape == v.shape and u.dtype == v.dtype, (k, u, v)
                d = (u - v).abs().max()
                if d > 1e-6: print('state', i, k, d)
    assert 0
