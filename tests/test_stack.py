"""Two stacks of MM packages, and what is missing on today's Python."""

import importlib.util

import mmengine.config.config
import pytest
from mmengine.config import Config

from mmlt import stack

UPSTREAM = {'mmengine': '0.10.7', 'mmpretrain': '1.2.0', 'mmcv-lite': '2.2.0'}
ONEDL = {'onedl-mmengine': '0.10.12', 'onedl-mmpretrain': '1.3.6', 'onedl-mmcv': '2.3.6'}


@pytest.mark.parametrize(
    'installed, named',
    [
        (UPSTREAM, None),
        (ONEDL, None),
        ({**UPSTREAM, 'onedl-mmengine': '0.10.12'}, 'mmengine and onedl-mmengine'),
        ({**ONEDL, 'mmcv-lite': '2.2.0'}, 'mmcv-lite and onedl-mmcv'),
        ({**UPSTREAM, 'mmcv': '2.2.0'}, 'mmcv and mmcv-lite'),
        ({**UPSTREAM, **ONEDL}, 'mmengine and onedl-mmengine'),
    ],
)
def test_packages_that_overwrite_each_other_are_named(monkeypatch, installed, named):
    monkeypatch.setattr(stack, 'installed_version', installed.get)
    sentence = stack.clash()
    assert (sentence is None) == (named is None)
    if named:
        assert sentence.startswith(f'{named} are both installed')
        assert f'pip uninstall -y {" ".join(named.split(" and "))}' in sentence


def test_no_clash_here():
    assert stack.clash() is None
    assert stack.installed_version('torch') and stack.installed_version('no-such-package') is None


def test_configs_of_mmpretrain_are_found_without_pkg_resources(tmp_path, monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, 'find_spec', lambda name, *a: None if name == 'pkg_resources' else real(name, *a)
    )
    for name in ('is_installed', 'get_installed_path'):
        monkeypatch.setattr(mmengine.config.config, name, None)
    stack.mend_package_lookup()
    (tmp_path / 'a.py').write_text("_base_ = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'\n")
    assert Config.fromfile(tmp_path / 'a.py').model.backbone.depth == 18
    assert stack.is_installed('mmpretrain') and not stack.is_installed('no_such_package')
    with pytest.raises(ModuleNotFoundError, match="'no_such_package' is not installed: pip install"):
        stack.get_installed_path('no_such_package')


def test_where_pkg_resources_is_there_nothing_is_changed(monkeypatch):
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: object())
    monkeypatch.setattr(mmengine.config.config, 'is_installed', 'own')
    stack.mend_package_lookup()
    assert mmengine.config.config.is_installed == 'own'
