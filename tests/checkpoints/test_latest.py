"""A training goes on from the newest checkpoint that is whole."""

import shutil
import subprocess
from pathlib import Path

import pytest
import torch

from mmlt import InputError
from mmlt.checkpoints import latest_whole_checkpoint, newest_checkpoint, read_checkpoint

STATE = dict(meta=dict(iter=1, epoch=1), message_hub={}, state_dict=dict(a=torch.ones(5000)))


def save(folder, *names, content=STATE, last=True):
    for name in names:
        torch.save(content, folder / name)
    if last:
        (folder / 'last_checkpoint').write_text(str(folder / names[-1]))


def cut(path):
    path = Path(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr('mmlt.checkpoints.latest.print_log', lambda line, *args: lines.append(line))
    return lines


def test_the_newest_is_whole(tmp_path, said):
    assert latest_whole_checkpoint(str(tmp_path)) is None
    save(tmp_path, 'epoch_9.pth', 'epoch_10.pth')
    assert latest_whole_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_10.pth') and not said


def test_the_one_before_a_damaged_one_is_taken(tmp_path, said):
    save(tmp_path, 'epoch_2.pth', 'epoch_9.pth', 'epoch_10.pth', 'epoch_11.pth')
    save(tmp_path, 'best_all_epoch_12.pth', last=False)
    save(tmp_path, 'model_99.pth', content=dict(state_dict={}, meta={}), last=False)  # weights alone
    cut(tmp_path / 'epoch_11.pth')
    assert latest_whole_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_10.pth')
    (line,) = said
    assert f"The newest checkpoint, '{tmp_path}/epoch_11.pth', is damaged" in line and '\n' not in line
    assert line.endswith(f'The training goes on from the one before it, {tmp_path}/epoch_10.pth.')
    cut(tmp_path / 'epoch_10.pth')
    (tmp_path / 'epoch_9.pth').write_bytes(b'')
    assert latest_whole_checkpoint(str(tmp_path)) == str(tmp_path / 'epoch_2.pth')


def test_none_is_whole(tmp_path):
    save(tmp_path, 'epoch_1.pth', 'epoch_2.pth')
    cut(tmp_path / 'epoch_1.pth')
    cut(tmp_path / 'epoch_2.pth')
    with pytest.raises(InputError, match=r"epoch_2.pth', is damaged.*no other one in '.*' to go on from: .*--restart"):
        latest_whole_checkpoint(str(tmp_path))


def test_the_newest_is_gone_or_elsewhere(tmp_path, said):
    save(tmp_path, 'iter_500.pth', 'iter_1000.pth')
    moved = tmp_path / 'moved'
    moved.mkdir()
    for path in [*tmp_path.glob('*.pth'), tmp_path / 'last_checkpoint']:
        shutil.move(path, moved)
    assert latest_whole_checkpoint(str(moved)) == str(moved / 'iter_1000.pth') and not said
    (moved / 'iter_1000.pth').unlink()
    assert latest_whole_checkpoint(str(moved)) == str(moved / 'iter_500.pth')
    assert "iter_1000.pth', is gone." in said[0]
    (moved / 'last_checkpoint').write_text('')  # cut off
    assert newest_checkpoint(str(moved)) == str(moved / 'iter_500.pth')


def test_what_would_run_is_not_passed_over(tmp_path, evil):
    save(tmp_path, 'epoch_1.pth')
    evil(tmp_path / 'epoch_2.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'epoch_2.pth'))
    with pytest.raises(InputError, match=r'epoch_2.pth.* asks for posix\.system'):
        latest_whole_checkpoint(str(tmp_path))


@pytest.mark.parametrize('form', ['zip', 'legacy'])
def test_a_training_that_was_cut_off_goes_on(two_stages, train_tool, said, form):
    train_tool.main(['a.py', '--no-test', '--cfg-options', 'train_cfg.max_epochs=2'])
    first = read_checkpoint('work_dirs/a/epoch_2.pth')
    if form == 'legacy':
        for path in Path('work_dirs/a').glob('epoch_*.pth'):
            torch.save(read_checkpoint(path), path, _use_new_zipfile_serialization=False)
    cut('work_dirs/a/epoch_2.pth')
    train_tool.main(['a.py', '--resume', '--no-test', '--cfg-options', 'train_cfg.max_epochs=2'])
    (line,) = said
    assert "work_dirs/a/epoch_2.pth', is damaged" in line and line.endswith('work_dirs/a/epoch_1.pth.')
    again = read_checkpoint('work_dirs/a/epoch_2.pth')
    assert again['meta']['epoch'] == 2 and again['meta']['iter'] == first['meta']['iter']
    for path in Path('work_dirs/a').glob('epoch_*.pth'):
        cut(path)
    with pytest.raises(SystemExit, match=r"^mmlt: .*epoch_2.pth', is damaged.* no other one in"):
        train_tool.main(['a.py', '--resume', '--no-test'])
    with pytest.raises(SystemExit, match=r"^mmlt: .*epoch_1.pth' could not be read: it is damaged"):
        train_tool.main(['a.py', '--resume', 'work_dirs/a/epoch_1.pth', '--no-test'])


def test_an_interrupted_stage_goes_on_without_being_asked(two_stages, train_tool, said):
    train_tool.main(['a.py', '--no-test'])
    record = Path('work_dirs/a/run.json')
    record.write_text(record.read_text().replace('"finished": true', '"finished": false'))
    cut('work_dirs/a/epoch_3.pth')
    train_tool.main(['a.py', '--no-test'])
    assert len(said) == 1 and 'goes on from the one before it, ' in said[0] and '"finished": true' in record.read_text()


@pytest.mark.slow
def test_two_processes_take_the_same_file(two_stages, train_tool, repo, launcher_env):
    train_tool.main(['a.py', '--no-test', '--cfg-options', 'train_cfg.max_epochs=2'])
    command = ['bash', repo / 'tools/dist_train.sh', 'a.py', '2', '--resume', '--no-test', '--cfg-options']

    def go_on():
        return subprocess.run(
            [*command, 'train_cfg.max_epochs=2'], capture_output=True, text=True, timeout=300, env=launcher_env
        )

    cut('work_dirs/a/epoch_2.pth')
    done = go_on()
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-2000:]
    assert said.count('The training goes on from the one before it, ') == 1
    assert read_checkpoint('work_dirs/a/epoch_2.pth')['meta']['epoch'] == 2
    for path in Path('work_dirs/a').glob('epoch_*.pth'):
        cut(path)
    done = go_on()
    assert done.returncode != 0 and done.stderr.count('There is no other one in') == 2  # each process says it
