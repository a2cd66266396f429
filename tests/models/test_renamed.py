"""Arguments by their earlier names."""

import pytest
from mmengine.config import Config
from mmpretrain.registry import MODELS

from mmlt import InputError
from mmlt.engine.arguments import check_arguments
from mmlt.engine.configs import read_config
from mmlt.engine.identity import comparable, decisive
from mmlt.models import BalancedLinearAdapter, CosineClsHead
from mmlt.utils import renamed

OLD = [
    (dict(type='mmlt.BalancedLinearAdapter', in_channels=4), 'ratio', 'residual_ratio', 0.5),
    (dict(type='mmlt.CosineClsHead', num_classes=3, in_channels=4, init='random'), 'scale', 'logit_scale', 7.0),
    (dict(type='mmlt.LDAMLoss'), 'scale', 'logit_scale', 3.0),
]


@pytest.fixture
def said(monkeypatch):
    sentences = []
    monkeypatch.setattr(renamed, 'print_log', lambda sentence, **_: sentences.append(sentence))
    return sentences


@pytest.mark.parametrize(('component', 'old', 'new', 'value'), OLD, ids=['adapter', 'cosine', 'ldam'])
def test_an_earlier_name_works_with_a_warning(component, old, new, value, said):
    assert getattr(MODELS.build({**component, old: value}), new) == value
    assert said == [f"{component['type'][5:]}: '{old}' is called '{new}' now; please rename it in the config."]
    # A config of one's own by the earlier name, which changes a base by the name of now.
    assert getattr(MODELS.build({**component, new: 0.1, old: value}), new) == value
    said.clear()
    assert getattr(MODELS.build({**component, new: value}), new) == value and not said


def test_an_earlier_name_is_checked_as_the_new_one(said):
    with pytest.raises(InputError, match=r'loss_ratio is 1\.5; it is the share'):
        MODELS.build(dict(type='mmlt.CVLP', backbone={}, text={}, ratio=1.5))
    with pytest.raises(TypeError, match="unexpected keyword argument 'ration'"):
        BalancedLinearAdapter(4, ration=0.5)
    assert CosineClsHead(3, 4, 9.0, init='random').logit_scale == 9.0  # by position, as ever


@pytest.mark.parametrize(('old', 'now'), [('ratio', 'residual_ratio'), ('residual_ratio', 'ratio'), ('ratio', 'ratio')])
def test_a_record_by_the_other_name_is_of_the_same_training(old, now):
    """Of a run that an earlier version started, too."""
    configs = [
        Config(dict(model=dict(type='ImageClassifier', neck=dict(type='mmlt.BalancedLinearAdapter', **{name: 0.3}))))
        for name in (old, now)
    ]
    recorded = dict(version=2, config={'model': configs[0].model.to_dict()})
    record, asked = comparable(recorded, decisive(configs[1]))
    assert record['model'] == asked['model'] and asked['model']['neck']['residual_ratio'] == 0.3


@pytest.mark.parametrize(('component', 'old', 'new', 'value'), OLD[:2], ids=['adapter', 'cosine'])
def test_configs_by_earlier_names_pass_the_check(component, old, new, value):
    check_arguments(Config(dict(model={**component, old: value})))


@pytest.mark.parametrize('first', ['residual_ratio', 'ratio'])
@pytest.mark.parametrize('own', ['residual_ratio', 'ratio'])
@pytest.mark.parametrize('given', ['residual_ratio', 'ratio'])
def test_the_last_word_counts(tmp_path, said, first, own, given):
    """Base, file and command line, whichever name each of them uses."""
    (tmp_path / 'base.py').write_text(f"model = dict(neck=dict(type='mmlt.BalancedLinearAdapter', {first}=0.1))")
    (tmp_path / 'own.py').write_text(f"_base_ = 'base.py'\nmodel = dict(neck=dict(in_channels=4, {own}=0.3))")
    for options, value in ((None, 0.3), ({f'model.neck.{given}': 0.9}, 0.9)):
        neck = read_config(str(tmp_path / 'own.py'), options).model.neck
        assert MODELS.build(neck).residual_ratio == value
