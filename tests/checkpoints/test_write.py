"""Files are written whole or not at all."""

import errno
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.fileio import get_file_backend, put, put_text
from mmengine.runner import save_checkpoint
from safetensors.torch import save_file

from mmlt import InputError
from mmlt.checkpoints import whole_file, write_bytes, write_text


def test_content_and_folder(tmp_path):
    write_text(tmp_path / 'a' / 'b.txt', 'é\n')
    write_bytes(tmp_path / 'c', b'x')
    assert (tmp_path / 'a/b.txt').read_bytes() == 'é\n'.encode() and (tmp_path / 'c').read_bytes() == b'x'
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['a', 'b.txt', 'c']


@pytest.mark.parametrize('error', [KeyboardInterrupt, ValueError('mine'), OSError(errno.ENOSPC, 'No space left')])
def test_what_was_there_stays_whole(tmp_path, error):
    path = tmp_path / 'a'
    path.write_text('before')
    with pytest.raises(InputError if isinstance(error, OSError) else BaseException) as raised, whole_file(path) as part:
        Path(part).write_text('half')
        raise error
    assert path.read_text() == 'before' and os.listdir(tmp_path) == ['a']
    if isinstance(error, OSError):
        assert str(raised.value).startswith(f"'{path}' cannot be written (No space left): make room there")


def test_folders_that_are_none_are_told(tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match="file/a' cannot be written"):
        write_text(tmp_path / 'file' / 'a', '')
    with pytest.raises(InputError, match="' cannot be written"):
        write_text(tmp_path, '')


@pytest.fixture
def small_disk():
    """No file can grow beyond 4 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


BIG = torch.zeros(10_000)


@pytest.mark.parametrize(
    'write',
    [
        lambda path: save_checkpoint(dict(x=BIG), str(path)),
        lambda path: put(bytes(10_000), path),
        lambda path: put_text('x' * 10_000, path),
        lambda path: write_text(path, 'x' * 10_000),
    ],
)
def test_a_full_disk_is_told_and_nothing_is_lost(tmp_path, small_disk, write):
    path = tmp_path / 'a'
    path.write_text('before')
    with pytest.raises(InputError, match="a' cannot be written"):
        write(path)
    assert path.read_text() == 'before' and os.listdir(tmp_path) == ['a']


@pytest.mark.parametrize('library', ['torch', 'safetensors'])
def test_libraries_that_meet_a_full_disk(tmp_path, small_disk, library):
    path = tmp_path / 'a'
    path.write_text('before')
    with pytest.raises(InputError, match="a' cannot be written"), whole_file(path) as part:
        torch.save(BIG, part) if library == 'torch' else save_file({'x': BIG}, part)
    assert path.read_text() == 'before' and os.listdir(tmp_path) == ['a']


def test_mmengine_writes_by_it(tmp_path):
    assert type(get_file_backend(str(tmp_path / 'x.pth'))).__name__ == 'WholeFilesBackend'
    save_checkpoint(dict(x=torch.ones(2)), str(tmp_path / 'x.pth'))
    assert torch.equal(torch.load(tmp_path / 'x.pth')['x'], torch.ones(2)) and os.listdir(tmp_path) == ['x.pth']


def test_a_killed_process_leaves_what_was_there(tmp_path):
    path = tmp_path / 'a'
    path.write_text('before')
    code = (
        'import os, signal\nfrom pathlib import Path\nfrom mmlt.checkpoints import whole_file\n'
        f"with whole_file({str(path)!r}) as part:\n    Path(part).write_text('half')\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == -signal.SIGKILL
    assert path.read_text() == 'before'
    write_text(path, 'after')
    assert path.read_text() == 'after' and os.listdir(tmp_path) == ['a']
