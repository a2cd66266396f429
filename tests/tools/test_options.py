"""What is given on a command line is never taken as not given."""

import pytest

from mmlt import InputError
from mmlt.engine.anchors import select_anchors
from mmlt.engine.hooks import FeatureCacheHook, FitHeadHook
from mmlt.models import AnchorKNNHead, LGRHead
from mmlt.options import ToolParser, at_least
from tests import stubs


@pytest.fixture
def main(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(tool, *arguments):
        stubs.tool(tool).main([str(a) for a in arguments])

    return run


@pytest.mark.parametrize(
    'tool, arguments, sentence',
    [
        ('select_anchors', ['c.py', '--out', 'o', '--num-anchors', '0'], '--num-anchors is 0; give at least 1'),
        ('select_anchors', ['c.py', '--out', 'o', '--images-per-class', '0'], '--images-per-class is 0'),
        ('select_anchors', ['c.py', '--out', 'o', '--seed', '-1'], '--seed is -1; give at least 0'),
        ('select_anchors', ['c.py', '', '--out', 'o'], 'checkpoint is given and empty'),
        ('model_converters/publish_model', ['a', 'b', '--size', '0'], '--size is 0; give at least 1'),
        ('reproduce', ['ce', 'tiny', 'mnist-lt', '--gpus', '0'], '--gpus is 0; give at least 1'),
        ('reproduce', ['ce', 'tiny', 'mnist-lt', '--data', ''], '--data is given and empty'),
        ('test', ['c.py', 'c.pth', '--work-dir', ''], '--work-dir is given and empty'),
        ('test', ['c.py', ''], 'checkpoint is given and empty'),
        ('train', ['c.py', '--work-dir', ' '], '--work-dir is given and empty'),
        ('train', ['c.py', '--resume', ''], '--resume is given and empty'),
        ('infer', ['a.jpg', '', '--config', 'c.py'], 'images is given and empty'),
        ('infer', ['a.jpg', '--config', 'c.py', '--classes', ''], '--classes is given and empty'),
        ('dataset_converters/prepare', ['p', '--out', 'o', '--texts', ''], '--texts is given and empty'),
        ('dataset_converters/prepare', ['p', '--out', 'o', '--name', ''], '--name is given and empty'),
        ('dataset_converters/prepare', ['p', '--out', 'o', '--epochs', '0'], 'epochs is 0'),
        ('model_converters/import_vlltr', ['a', 'b', '--out', 'c', '--texts', ''], '--texts is given and empty'),
    ],
)
def test_tools(main, tool, arguments, sentence):
    with pytest.raises(SystemExit) as stop:
        main(tool, *arguments)
    assert str(stop.value.code).startswith('mmlt: ') and sentence in stop.value.code


def test_parser():
    parser = ToolParser('What it does.')
    parser.add_argument('files', nargs='*')
    parser.add_argument('-n', '--number', type=at_least(0), nargs='+')
    parser.add_argument('--text', default='')
    args = parser.parse_args(['a', '-n', '0', '3'])
    assert (args.files, args.number, args.text) == (['a'], [0, 3], '')
    with pytest.raises(SystemExit, match='mmlt: --number is -2; give at least 0.'):
        parser.parse_args(['-n', '0', '-2'])


@pytest.mark.parametrize(
    'build, sentence',
    [
        (lambda: FeatureCacheHook(batch_size=0), 'FeatureCacheHook: batch_size is 0'),
        (lambda: FitHeadHook(dict(), batch_size=0), 'FitHeadHook: batch_size is 0'),
        (lambda: LGRHead(3, 8, hidden_channels=0), 'hidden_channels is 0'),
        (lambda: LGRHead(3, 8, logit_scale=0), 'logit_scale is 0'),
        (lambda: AnchorKNNHead(3, 8, logit_scale=0.0), r'logit_scale is 0\.0'),
        (lambda: select_anchors(None, None, [], num_anchors=0), 'num_anchors is 0; it must be at least 1'),
    ],
)
def test_zero_is_not_the_default(build, sentence):
    with pytest.raises(InputError, match=sentence):
        build()
