"""A config's text is laid out once."""

import gc

import mmengine.config.config
import pytest
from mmengine.config import Config
from yapf.yapflib.yapf_api import FormatCode

from mmlt.engine.config_text import remembered
from mmlt.utils import quick_collections


@pytest.fixture
def layouts(monkeypatch):
    """How often yapf is asked."""
    asked = []

    def lay_out(text, **settings):
        asked.append(text)
        return FormatCode(text, **settings)

    monkeypatch.setattr(mmengine.config.config, 'FormatCode', remembered(lay_out))
    return asked


def test_the_same_text_once(layouts, monkeypatch):
    cfg = Config(dict(model=dict(type='A', sizes=[1, 2]), work_dir='x'))
    texts = [cfg.pretty_text for _ in range(3)]
    assert len(layouts) == 1 and len(set(texts)) == 1
    monkeypatch.setattr(mmengine.config.config, 'FormatCode', FormatCode)
    assert cfg.pretty_text == texts[0]


def test_a_changed_config_has_its_own(layouts):
    cfg = Config(dict(work_dir='x'))
    assert 'x' in cfg.pretty_text
    cfg.work_dir = 'y'
    assert cfg.pretty_text == "work_dir = 'y'\n" and len(layouts) == 2


def test_another_style_is_another_layout():
    lay_out = remembered(lambda text, **settings: (text, settings), number=2)
    assert lay_out('a', style_config=dict(x=1)) != lay_out('a', style_config=dict(x=2))
    assert lay_out('a', style_config=dict(x=1), verify=True)[1] == dict(style_config=dict(x=1), verify=True)


def test_few_are_known():
    asked = []
    lay_out = remembered(asked.append, number=2)
    for text in 'abbaca':
        lay_out(text)
    assert asked == ['a', 'b', 'c', 'a']


def test_an_error_is_not_remembered():
    def fails(text):
        raise SyntaxError(text)

    lay_out = remembered(fails)
    for _ in range(2):
        with pytest.raises(SyntaxError):
            lay_out('a')


def test_collections_are_quick_inside_only():
    before = gc.get_freeze_count()
    gc.unfreeze()
    try:
        with pytest.raises(ZeroDivisionError), quick_collections():
            assert gc.get_freeze_count() > 0
            with quick_collections():
                assert gc.get_freeze_count() > 0
            assert gc.get_freeze_count() > 0
            _ = 1 / 0
        assert gc.get_freeze_count() == 0
        gc.freeze()
        with quick_collections():
            pass
        assert gc.get_freeze_count() > 0  # as somebody else had it
    finally:
        gc.unfreeze()
        if before:
            gc.freeze()
