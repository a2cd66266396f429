"""Files that would run something, and proof that they did not."""

import os
import pickle
from pathlib import Path

import pytest
import torch


class Payload:
    """Pickles as a call that makes a file."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'touch {self.marker}',)


@pytest.fixture
def evil(tmp_path):
    """Writes a checkpoint with a payload beside its weights; at the end it must be as it was, and nothing have run."""
    marker, written = tmp_path / 'the payload ran'.replace(' ', '_'), {}

    def write(path, content=None, kind='zip') -> str:
        content = {**(content or dict(state_dict={'a': torch.ones(2)}, meta={})), 'extra': Payload(marker)}
        if kind == 'pickle':
            Path(path).write_bytes(pickle.dumps({'extra': Payload(marker)}, protocol=2))
        else:
            torch.save(content, path, _use_new_zipfile_serialization=kind == 'zip')
        written[Path(path).resolve()] = Path(path).read_bytes()
        return str(path)

    yield write
    assert written and not marker.exists()
    for path, content in written.items():
        assert path.read_bytes() == content, path
