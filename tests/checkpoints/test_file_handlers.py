"""Annotations and configs as .pkl and .yml are read as data, by MMEngine's own functions too."""

import mmengine
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmpretrain.datasets import MultiLabelDataset

from mmlt import InputError
from mmlt.engine.configs import read_config


def test_pickles_of_data(tmp_path):
    content = [dict(img_path='a.png', gt_label=np.array([1, 2]), score=torch.arange(3.0), more=(1, None, {2}))]
    for name in ('a.pkl', 'a.pickle'):
        mmengine.dump(content, str(tmp_path / name))
        (read,) = mmengine.load(str(tmp_path / name))
        assert read['img_path'] == 'a.png' and read['gt_label'].tolist() == [1, 2] and read['more'] == (1, None, {2})
        assert torch.equal(read['score'], torch.arange(3.0))


def test_annotations_with_a_payload(tmp_path, evil):
    path = evil(tmp_path / 'a.pkl', kind='pickle')
    with pytest.raises(InputError, match=rf"The pickle '{path}' asks for posix\.system"):
        mmengine.load(path)
    with pytest.raises(InputError, match=r'asks for posix\.system'):
        MultiLabelDataset(ann_file=path)


def test_yaml(tmp_path):
    good, bad = tmp_path / 'good.yml', tmp_path / 'bad.yaml'
    mmengine.dump(dict(model=dict(type='A', size=(1, 2)), on=True), str(good))
    assert Config.fromfile(str(good)).model.to_dict() == dict(type='A', size=(1, 2))
    bad.write_text(f'a: 1\nb: !!python/object/apply:os.system ["touch {tmp_path}/ran"]\n')
    with pytest.raises(
        InputError, match=r"bad\.yaml' has in line 2 what is not data .*could run code: it was not read"
    ):
        mmengine.load(str(bad))
    with pytest.raises(InputError, match=r'bad\.yaml.* was not read'):
        read_config(str(bad))
    assert not (tmp_path / 'ran').exists()


def test_predictions_that_a_test_wrote(two_stages, test_tool):
    test_tool.main(['a.py', '--out', 'p.pkl'])
    predictions = mmengine.load('p.pkl')
    assert len(predictions) == 6 and predictions[0]['pred_score'].shape == (3,)
