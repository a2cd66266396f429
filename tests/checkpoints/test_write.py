"""Files are written whole or not at all."""

import os
import signal
import tempfile
import threading
import time
from pathlib import Path

import mmengine
import pytest
import torch
from safetensors.torch import load_file

from mmlt import InputError
from mmlt.checkpoints import (
    WriteError,
    check_folder,
    remove_parts,
    save_json,
    save_tensors,
    save_torch,
    write_atomic,
)
from mmlt.checkpoints.write import why_unwritten


def in_a_process(work) -> int:
    """The end of a process of its own that does something."""
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(work() or 0)
        except BaseException:
            os._exit(1)
    return os.waitpid(pid, 0)[1]


@pytest.mark.parametrize('content', [b'new', 'new', lambda part: Path(part).write_text('new')])
def test_a_file_and_its_folder(tmp_path, content):
    path = tmp_path / 'below' / 'a.txt'
    for _ in range(2):
        write_atomic(path, content)
        assert path.read_text() == 'new' and os.listdir(path.parent) == ['a.txt']
    (tmp_path / 'plain').write_text('')
    assert path.stat().st_mode == (tmp_path / 'plain').stat().st_mode
    link = tmp_path / 'link'
    link.symlink_to(path)
    write_atomic(link, 'newer')
    assert link.is_symlink() and path.read_text() == 'newer'


def test_what_was_there_stays_when_writing_fails(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def half(part):
        with open(part, 'w') as f:
            f.write('ne')
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomic(path, half)
    assert path.read_text() == 'old' and os.listdir(tmp_path) == ['a.txt']


def test_a_killed_writer_leaves_what_was_there(tmp_path):
    path = tmp_path / 'a.txt'
    path.write_text('old')

    def half(part):
        with open(part, 'w') as f:
            f.write('ne')
        os.kill(os.getpid(), signal.SIGKILL)

    assert in_a_process(lambda: write_atomic(path, half)) == signal.SIGKILL
    (part,) = set(tmp_path.iterdir()) - {path}
    assert path.read_text() == 'old'
    write_atomic(path, 'new')
    assert part.exists()  # young: somebody may still be writing it
    os.utime(part, (0, 0))
    write_atomic(path, 'new')
    assert os.listdir(tmp_path) == ['a.txt']
    (tmp_path / 'b.txt.12345678.part').write_text('')
    remove_parts(tmp_path)
    assert os.listdir(tmp_path) == ['a.txt']


@pytest.mark.parametrize('save', [save_torch, save_tensors, save_json, write_atomic, mmengine.dump])
def test_no_room(tmp_path, save):
    """The limit of a file's size stands for a full disk."""
    import resource

    name = {save_tensors: 'a.safetensors', save_json: 'a.json', mmengine.dump: 'a.json'}.get(save, 'a.pth')
    path = tmp_path / name
    path.write_text('old')
    content = {save_torch: dict(a=torch.ones(9999)), save_tensors: dict(a=torch.ones(9999)), write_atomic: b'0' * 40000}
    content = content.get(save, ['0' * 40000])

    def work():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
        try:
            save(content, path) if save is not write_atomic else save(path, content)
        except InputError as e:
            said = str(e)
            right = said.startswith(f"'{path}' could not be written (") and 'make room' in said and '\n' not in said
            return 7 if right and isinstance(e, WriteError) else 8

    assert in_a_process(work) == 7 << 8
    assert path.read_text() == 'old' and os.listdir(tmp_path) == [name]


def test_mmengine_writes_by_it(tmp_path):
    """Its checkpoints and its results; a reader never sees a part of a file."""
    path = tmp_path / 'a.pth'
    mmengine.runner.save_checkpoint(dict(a=torch.zeros(500_000)), str(path))
    sizes, stop = set(), threading.Event()

    def look():
        while not stop.is_set():
            sizes.add(path.stat().st_size)

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(20):
        mmengine.runner.save_checkpoint(dict(a=torch.zeros(500_000)), str(path))
    stop.set()
    looking.join()
    assert len(sizes) == 1
    mmengine.dump(dict(a=1), tmp_path / 'a.json')
    assert sorted(os.listdir(tmp_path)) == ['a.json', 'a.pth'] and mmengine.load(tmp_path / 'a.json') == dict(a=1)


def test_two_writers_at_once(tmp_path):
    path = tmp_path / 'a.safetensors'

    def write(value):
        for _ in range(20):
            save_tensors(dict(a=torch.full((1000,), value)), path)

    pids = []
    for value in (1.0, 2.0):
        if (pid := os.fork()) == 0:
            try:
                write(value)
                os._exit(0)
            finally:
                os._exit(1)
        pids.append(pid)
    deadline = time.time() + 30
    while not path.exists() and time.time() < deadline:
        time.sleep(0.001)
    for _ in range(50):
        assert len(load_file(path)['a'].unique()) == 1
    assert [os.waitpid(pid, 0)[1] for pid in pids] == [0, 0]


def test_a_folder_that_cannot_be_written_in(tmp_path):
    check_folder(tmp_path / 'new')
    assert os.listdir(tmp_path / 'new') == []
    (tmp_path / 'file').write_text('')
    with pytest.raises(WriteError, match=r"Nothing can be written in '.*/file/below' \("):
        check_folder(tmp_path / 'file' / 'below')

    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders cannot be entered by everybody
        os.chmod(folder, 0o555)

        def work():
            if os.getuid() == 0:
                os.setuid(65534)  # for root no folder is read-only
            for attempt in (check_folder, lambda folder: write_atomic(f'{folder}/a', b'')):
                with pytest.raises(WriteError, match=r'permission denied.*--work-dir'):
                    attempt(folder)

        assert in_a_process(work) == 0
        os.chmod(folder, 0o700)


def test_other_errors_are_not_ours(tmp_path):
    with pytest.raises(TypeError):
        save_json(object(), tmp_path / 'a.json')
    assert why_unwritten(RuntimeError('shapes differ')) is None and not list(tmp_path.iterdir())
