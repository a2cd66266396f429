"""A checkpoint that would run code is refused by one sentence, wherever a file of weights can be given."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import mmpretrain
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, load_checkpoint
from mmpretrain.registry import MODELS

from mmlt import InputError
from mmlt.apis import get_model
from mmlt.models import OpenCLIPText, OpenCLIPVision

MODEL = 'mmlt-tiny-vit'
REFUSED = r"'[^']*evil[^']*'.* could not be read: it asks for posix\.system, which is no tensor or plain value"


@pytest.fixture
def tool(repo):
    """Runs the main function of a tool."""

    def run(name, *arguments):
        spec = importlib.util.spec_from_file_location(f'mmlt_tool_{Path(name).stem}', repo / 'tools' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main([str(each) for each in arguments])

    return run


def check(error: BaseException) -> None:
    said = str(error)
    assert 'weights_only' not in said and 'Traceback' not in said and '\n' not in said
    assert 'nothing of it was loaded' in said and said.count('could not be read') == 1


TOOLS = {
    'train, load_from': ('train', 'a.py', '--cfg-options', 'load_from=evil.pth'),
    'train, resume': ('train', 'a.py', '--resume', 'evil.pth'),
    'train, init_cfg': (
        *('train', 'a.py', '--cfg-options', 'model.backbone.init_cfg.type=Pretrained'),
        'model.backbone.init_cfg.checkpoint=evil.pth',
    ),
    'train, weights of the towers': (
        *('train', 'a.py', '--cfg-options', 'model.backbone.pretrained=evil.pth'),
        'model.head.text.pretrained=evil.pth',
    ),
    'train, averaged weights': (
        *('train', 'a.py', '--resume', 'evil.pth', '--cfg-options'),
        "custom_hooks=[{'type': 'EMAHook'}]",
    ),
    'test': ('test', 'a.py', 'evil.pth'),
    'test, augmented': ('test', 'a.py', 'evil.pth', '--tta'),
    'infer': ('infer', 'images', '--config', 'a.py', '--checkpoint', 'evil.pth'),
    'export': ('deployment/export', 'a.py', 'evil.pth', '--format', 'torchscript', '--out', 'o.pt'),
    'import_ballad': ('model_converters/import_ballad', 'evil.pth', 'a.py', '--out', 'o.pth'),
    'import_vlltr': ('model_converters/import_vlltr', 'evil.pth', 'a.py', '--out', 'o.pth'),
    'publish_model': ('model_converters/publish_model', 'evil.pth', 'o.pth'),
    'to_open_clip': ('model_converters/to_open_clip', 'evil.pth', 'o.safetensors'),
    'retrieve_concepts': ('analysis_tools/retrieve_concepts', 'a.py', 'evil.pth', '--words', 'x'),
}


@pytest.mark.parametrize('arguments', TOOLS.values(), ids=TOOLS)
@pytest.mark.parametrize('kind', ['zip', 'legacy'])
def test_tools(two_stages, tool, evil, arguments, kind, capfd):
    evil('evil.pth', kind=kind)
    with pytest.raises(SystemExit, match=f'^mmlt: .*{REFUSED}') as stop:
        tool(*arguments)
    check(stop.value)
    assert not list(Path().glob('o.*'))
    assert 'weights_only' not in ''.join(capfd.readouterr())


def test_the_newest_of_a_work_directory_and_an_earlier_stage(two_stages, tool, evil):
    """What the tools find by themselves."""
    Path('work_dirs/a').mkdir(parents=True)
    evil('work_dirs/a/evil_1.pth')
    Path('work_dirs/a/last_checkpoint').write_text('work_dirs/a/evil_1.pth')
    with pytest.raises(SystemExit, match=REFUSED) as stop:
        tool('train', 'a.py', '--resume')
    check(stop.value)
    tool('train', 'a.py', '--work-dir', 'work_dirs/b/phase_a', '--no-test', '--cfg-options', 'train_cfg.max_epochs=1')
    record = Path('work_dirs/b/phase_a/run.json')
    record.write_text(json.dumps({**json.loads(record.read_text()), 'best': 'evil.pth'}))
    evil('work_dirs/b/phase_a/evil.pth')
    with pytest.raises(SystemExit, match=REFUSED) as stop:
        tool('train', 'b.py', '--no-trial', '--cfg-options', 'stages.phase_a.options.train_cfg.max_epochs=1')
    check(stop.value)


def test_select_anchors(two_stages, tool, evil, repo):
    evil('evil.pth')
    Path('texts.json').write_text(json.dumps({name: [f'A {name}.'] for name in ('apple', 'pear', 'plum')}))
    clip = Config.fromfile('a.py').model.backbone.pretrained
    Path('c.py').write_text(
        f"""
_base_ = ['a.py']
model = dict(
    _delete_=True, type='mmlt.CVLP', backbone=dict(type='mmlt.OpenCLIPVision', model='{MODEL}', pretrained='{clip}'),
    text=dict(type='mmlt.OpenCLIPText', model='{MODEL}', pretrained='{clip}'),
    texts=dict(type='mmlt.ClassTexts', templates='a photo of the {{}}'), ratio=1,
    data_preprocessor=dict(type='mmlt.CLIPDataPreprocessor'))
"""
    )
    with pytest.raises(SystemExit, match=REFUSED) as stop:
        tool('select_anchors', 'c.py', 'evil.pth', '--out', 'o.safetensors')
    check(stop.value)


APIS = {
    'get_model': lambda path: get_model('a.py', path),
    "MMPretrain's get_model": lambda path: mmpretrain.get_model('a.py', pretrained=path),
    "MMEngine's load_checkpoint": lambda path: load_checkpoint(torch.nn.Linear(1, 1), path),
    "MMEngine's CheckpointLoader": lambda path: CheckpointLoader.load_checkpoint(path, 'cpu'),
    'file://': lambda path: CheckpointLoader.load_checkpoint(f'file://{path}'),
    'vision tower': lambda path: OpenCLIPVision(MODEL, path).init_weights(),
    'text tower': lambda path: OpenCLIPText(MODEL, path).init_weights(),
}


@pytest.mark.parametrize('call', APIS.values(), ids=APIS)
def test_apis(two_stages, evil, call):
    with pytest.raises(InputError, match=REFUSED) as error:
        call(evil(os.path.abspath('evil.pth')))
    check(error.value)


@pytest.mark.parametrize('name', ['evil.bin', 'evil.pt', 'evil.safetensors', 'evil.npz'])
def test_weight_files_of_towers(tmp_path, evil, name):
    evil(tmp_path / name, kind='pickle')
    with pytest.raises(
        InputError, match=f"'{tmp_path / name}' of open_clip model '{MODEL}' could not be read"
    ) as error:
        OpenCLIPVision(MODEL, str(tmp_path / name)).init_weights()
    assert 'pickle.load' not in str(error.value) and 'allow_pickle' not in str(error.value)


def test_models_of_a_folder(tmp_path, evil):
    import open_clip

    settings = dict(model_cfg=open_clip.get_model_config(MODEL), preprocess_cfg={})
    (tmp_path / 'open_clip_config.json').write_text(json.dumps(settings))
    evil(tmp_path / 'open_clip_pytorch_model.bin', {'visual.proj': torch.ones(2)})
    with pytest.raises(InputError, match=r'open_clip_pytorch_model.bin.* asks for posix\.system') as error:
        OpenCLIPVision(f'local-dir:{tmp_path}').init_weights()
    check(error.value)


def test_files_beside_checkpoints(tmp_path, evil, tool, two_stages):
    """Anchors, class embeddings and arrays have formats of their own, which hold no pickles."""
    evil(tmp_path / 'evil.safetensors', kind='pickle')
    backbone = dict(type='mmlt.OpenCLIPVision', model=MODEL)
    head = dict(type='mmlt.LGRHead', num_classes=3, in_channels=64, anchors=str(tmp_path / 'evil.safetensors'))
    with pytest.raises(InputError, match=r'evil\.safetensors'):
        MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head)).init_weights()
    head = dict(type='mmlt.TextClsHead', class_embeddings=str(tmp_path / 'evil.safetensors'), logit_scale=1.0)
    with pytest.raises(InputError, match=r'evil\.safetensors'):
        MODELS.build(dict(type='ImageClassifier', backbone=backbone, head=head)).init_weights()
    np.save('evil.npy', np.array([{}], dtype=object), allow_pickle=True)
    Path('raw.npy').write_bytes(Path(evil('evil.pkl', kind='pickle')).read_bytes())
    from mmlt.models.converters import read_array

    for name in ('evil.npy', 'raw.npy'):
        with pytest.raises(InputError, match=f"The array '{name}' could not be read") as error:
            read_array(name, 2)
        assert 'allow_pickle' not in str(error.value) and 'unsafely' not in str(error.value)


def test_the_config_in_a_checkpoint_is_not_run(two_stages, tool, tmp_path):
    """MMEngine keeps the config as a text in Python beside the weights."""
    tool('train', 'a.py', '--no-test', '--cfg-options', 'train_cfg.max_epochs=1')
    content = torch.load('work_dirs/a/epoch_1.pth', weights_only=False)
    code = f'import os\nos.system("touch {tmp_path}/ran")\n'
    content['meta']['cfg'] = code + content['meta']['cfg']
    content['meta']['config'] = code
    torch.save(content, 'evil.pth')
    with pytest.raises(SystemExit, match="The config that 'evil.pth' carries has more than data in line 1 .'import os"):
        tool('train', 'a.py', '--resume', 'evil.pth')
    # The text that the log buffers carry takes the place of the running config's when a training goes on.
    content['meta']['cfg'] = content['meta']['cfg'].removeprefix(code)
    content['message_hub']['runtime_info']['cfg'] = code
    torch.save(content, 'evil.pth')
    try:
        tool('train', 'a.py', '--resume', 'evil.pth', '--cfg-options', 'train_cfg.max_epochs=2')
    except SystemExit as stop:
        assert 'has more than data' in str(stop)
    assert not Path('ran').exists()


@pytest.mark.slow
@pytest.mark.parametrize('config', ['a.py', 'plain.py'])
def test_stock_tools(two_stages, evil, repo, config):
    """MMPretrain's own train.py and test.py, with our Runner and with MMEngine's; the sentence, and no traceback."""
    shutil.copy('a.py', 'plain.py')
    with open('plain.py', 'a') as f:
        f.write("\nrunner_type = 'Runner'\ncustom_imports = dict(imports=['mmlt'], allow_failed_imports=False)\n")
    evil('evil.pth')
    stock = Path(mmpretrain.__file__).parent / '.mim/tools'
    for name, *arguments in (
        ('test.py', config, 'evil.pth'),
        ('train.py', config, '--resume', 'evil.pth'),
        ('train.py', config, '--cfg-options', 'load_from=evil.pth'),
    ):
        done = subprocess.run(
            [sys.executable, stock / name, *arguments],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, 'PYTHONPATH': str(repo)},
        )
        said = done.stdout + done.stderr
        assert done.returncode == 1, said[-2000:]
        assert (
            said.strip().splitlines()[-1].startswith("mmlt: The checkpoint 'evil.pth' could not be read: it asks for")
        )
        assert 'Traceback' not in said and 'weights_only' not in said
