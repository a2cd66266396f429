"""A file that asks to run code is refused by one sentence wherever weights are read, and nothing runs."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import mmpretrain
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import CheckpointLoader, Runner
from mmpretrain.registry import MODELS
from mmpretrain.utils import register_all_modules

from mmlt import InputError
from mmlt.apis import get_model
from mmlt.checkpoints import is_torchscript, read_torchscript
from mmlt.models import OpenCLIPText, OpenCLIPVision
from tests import stubs

MODEL = 'mmlt-tiny-vit'


class Payload:
    """Writes a file when it is unpickled."""

    def __reduce__(self):
        return os.system, ('touch touched',)


class Nested:
    """Reaches for a function by attributes, as it would where getattr is allowed."""

    def __reduce__(self):
        return getattr, (torch.Tensor, '__class__')


KINDS = {
    'zip': lambda path: torch.save(dict(state_dict=dict(x=torch.ones(1)), meta=Payload()), path),
    'legacy': lambda path: torch.save(dict(x=Payload()), path, _use_new_zipfile_serialization=False),
    'plain pickle': lambda path: Path(path).write_bytes(pickle.dumps(dict(state_dict=Payload()))),
    'attributes': lambda path: torch.save(dict(state_dict=Nested()), path),
}


PICTURE = 'images/apple/0.png'
TOOLS = {
    'test': ('test', ['a.py', 'evil.pth']),
    'train --resume': ('train', ['a.py', '--resume', 'evil.pth']),
    'train load_from': ('train', ['a.py', '--cfg-options', 'load_from=evil.pth']),
    'train pretrained': ('train', ['a.py', '--cfg-options', 'model.backbone.pretrained=evil.pth']),
    'train init_cfg': (
        'train',
        [
            'a.py',
            '--cfg-options',
            'model.backbone.init_cfg.type=Pretrained',
            'model.backbone.init_cfg.checkpoint=evil.pth',
        ],
    ),
    'infer': ('infer', ['{picture}', '--config', 'a.py', '--checkpoint', 'evil.pth']),
    'export': ('deployment/export', ['a.py', 'evil.pth', '--format', 'torchscript', '--out', 'x.pt']),
    'import_ballad': ('model_converters/import_ballad', ['evil.pth', 'a.py', '--out', 'x.pth']),
    'import_vlltr': ('model_converters/import_vlltr', ['evil.pth', 'a.py', '--out', 'x.pth']),
    'publish': ('model_converters/publish_model', ['evil.pth', 'x.pth']),
    'to_open_clip': ('model_converters/to_open_clip', ['evil.pth', 'x.safetensors']),
    'retrieve': ('analysis_tools/retrieve_concepts', ['a.py', 'evil.pth', '--words', 'x', '-o', 'x.png']),
}


@pytest.fixture
def evil(two_stages, request):
    KINDS[request.param]('evil.pth')
    return two_stages


def untouched(folder):
    assert not (folder / 'touched').exists()


@pytest.mark.parametrize('evil', KINDS, indirect=True)
@pytest.mark.parametrize('entry', TOOLS)
def test_tools(evil, entry, picture_folder, capsys):
    name, arguments = TOOLS[entry]
    picture = next((picture_folder / 'images').rglob('*.*'))
    before = (evil / 'evil.pth').read_bytes()
    with pytest.raises(SystemExit) as stop:
        stubs.tool(name).main([a.format(picture=picture) for a in arguments])
    message = str(stop.value)
    assert message.startswith('mmlt: ') and '\n' not in message and 'evil.pth' in message
    assert 'which could run code' in message and 'weights_only' not in message
    untouched(evil)
    assert (evil / 'evil.pth').read_bytes() == before


def load_by_mmengine(folder):
    CheckpointLoader.load_checkpoint('evil.pth')


def load_by_runner(folder):
    cfg = Config.fromfile('a.py')
    cfg.update(work_dir='work', load_from='evil.pth')
    runner = Runner.from_cfg(cfg)  # MMEngine's own
    runner.test()


API = {
    'get_model': lambda folder: get_model('a.py', 'evil.pth'),
    'image tower': lambda folder: OpenCLIPVision(MODEL, 'evil.pth').init_weights(),
    'text tower': lambda folder: OpenCLIPText(MODEL, 'evil.pth').init_weights(),
    "MMEngine's loader": load_by_mmengine,
    "MMEngine's runner": load_by_runner,
    'init_cfg': lambda folder: MODELS.build(
        dict(type='ResNet', depth=18, init_cfg=dict(type='Pretrained', checkpoint='evil.pth'))
    ).init_weights(),
}


@pytest.mark.parametrize('evil', KINDS, indirect=True)
@pytest.mark.parametrize('entry', API)
def test_calls(evil, entry):
    register_all_modules(init_default_scope=True)
    with pytest.raises(InputError, match=r'evil\.pth.* which could run code') as error:
        API[entry](evil)
    assert 'weights_only' not in str(error.value)
    untouched(evil)


@pytest.mark.slow
@pytest.mark.parametrize('evil', ['zip'], indirect=True)
@pytest.mark.parametrize('name', ['train', 'test'])
def test_stock_tools(evil, name):
    stock = Path(mmpretrain.__file__).parent / '.mim/tools' / f'{name}.py'
    options = dict(train=['--resume', 'evil.pth'], test=['evil.pth'])[name]
    found = subprocess.run(
        [sys.executable, '-W', 'ignore', stock, 'a.py', *options, '--work-dir', 'work'], capture_output=True, text=True
    )
    last = found.stderr.strip().splitlines()[-1]
    assert found.returncode and last.startswith(
        "mmlt: The checkpoint 'evil.pth' cannot be read: it asks for posix.system"
    )
    assert 'weights_only' not in found.stderr and 'Traceback' not in found.stderr
    untouched(evil)


def test_code_in_the_config_of_a_checkpoint_is_not_run_at_a_resume(two_stages, train_tool, caplog):
    train_tool.main(['a.py', '--no-test', '--cfg-options', 'train_cfg.max_epochs=1'])
    path = Path('work_dirs/a/epoch_1.pth')
    checkpoint = torch.load(path, weights_only=False)
    code = 'import os\nos.system("touch touched")\n'
    checkpoint['meta'].update(cfg=code, config=code)
    checkpoint['message_hub']['runtime_info']['cfg'] = code
    torch.save(checkpoint, path)
    train_tool.main(['a.py', '--resume', str(path)])
    untouched(two_stages)


# TorchScript


class Scripted(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 2)
        self.norm = torch.nn.BatchNorm1d(2)
        self.register_buffer('mixed', torch.arange(6, dtype=torch.float16).view(2, 3).t())
        self.size: int = 3

    def forward(self, x):
        return self.norm(self.layer(x)) + self.size


class Writes(torch.nn.Module):
    """Writes a file when torch.jit.load reads it."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(2))

    @torch.jit.export
    def __getstate__(self):
        return self.weight, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[torch.Tensor, bool]):
        self.weight = state[0]
        self.training = state[1]
        torch.save(self.weight, 'touched')

    def forward(self, x):
        return x


def test_the_weights_of_a_torchscript_archive(tmp_path):
    model = Scripted()
    path = str(tmp_path / 'model.pt')
    torch.jit.save(torch.jit.script(model), path)
    assert is_torchscript(path)
    found = read_torchscript(path)
    assert found.keys() == model.state_dict().keys()
    for key, value in model.state_dict().items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value)


def test_traced_models_share_numbers(tmp_path):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model[1].weight = model[0].weight
    torch.jit.save(torch.jit.trace(model, torch.ones(1, 2)), tmp_path / 'model.pt')
    found = read_torchscript(str(tmp_path / 'model.pt'))
    assert torch.equal(found['0.weight'], model[0].weight) and torch.equal(found['1.weight'], model[0].weight)


def test_methods_of_an_archive_are_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.jit.save(torch.jit.script(Writes()), 'model.pt')
    Path('touched').unlink(missing_ok=True)
    with pytest.raises(InputError, match=r"'model\.pt'"):
        OpenCLIPVision(MODEL, 'model.pt').init_weights()
    untouched(tmp_path)


@pytest.mark.parametrize('kind', ['code', 'cut', 'outside'])
def test_other_archives_are_refused(tmp_path, kind, monkeypatch):
    import zipfile

    monkeypatch.chdir(tmp_path)
    torch.jit.save(torch.jit.script(Scripted()), 'model.pt')
    with zipfile.ZipFile('model.pt') as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    if kind == 'code':
        files['model/data.pkl'] = pickle.dumps(Payload())
    if kind == 'cut':
        files['model/data/0'] = files['model/data/0'][:-4]
    if kind == 'outside':
        files['model/data.pkl'] = files['model/data.pkl'].replace(b'K\x02K\x03', b'K\x7fK\x7f')
    with zipfile.ZipFile('evil.pt', 'w') as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=r"'evil\.pt'"):
        OpenCLIPVision(MODEL, 'evil.pt').init_weights()
    untouched(tmp_path)
