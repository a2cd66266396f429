"""The multi-label digits in a run: counts reach the loss by themselves, the report is written."""

import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import RUNNERS


def small(repo, name, work_dir):
    """The config on 60 canvases, for one epoch."""
    cfg = Config.fromfile(repo / f'configs/baselines/{name}_tiny_multi-label-digits.py')
    cfg.work_dir = str(work_dir)
    cfg.train_cfg.max_epochs = cfg.train_cfg.val_interval = 1
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.update(num_workers=0, persistent_workers=False, batch_size=20)
        loader.dataset.update(num_images=60, max_count=40, imbalance_ratio=20)
    if 'num_samples' in cfg.train_dataloader.sampler:
        cfg.train_dataloader.sampler.num_samples = 60
    return cfg


@pytest.mark.parametrize('name', ['bce', 'asl', 'db'])
def test_run(repo, tmp_path, name):
    runner = RUNNERS.build(small(repo, name, tmp_path))
    before = runner.model.head.fc.weight.detach().clone()
    runner.train()
    assert not torch.equal(before, runner.model.head.fc.weight)
    if name == 'db':
        loss = runner.model.head.loss_module
        counts = runner.train_dataloader.dataset.metainfo['class_counts']
        assert counts[0] == 40 and counts[-1] == 2
        assert loss.class_counts.tolist() == counts and loss.num_images == 60
    metrics = runner.test()
    assert 0 < metrics['shot/all'] <= 100
    report = json.loads(next(tmp_path.rglob('shot_report.json')).read_text())
    assert report['protocol'] == 'db' and report['classes_per_shot'] == {'many': 0, 'medium': 3, 'few': 7}
    assert report['num_samples'] == 60 and len(report['per_class']) == 10
    assert 'shot/many' not in metrics
