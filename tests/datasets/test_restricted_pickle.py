"""Data of any protocol come through; whatever else a pickle asks for is refused and named."""

import pickle
import subprocess

import numpy as np
import pytest

from mmlt import InputError
from mmlt.datasets import load_restricted_pickle

DATA = {
    'gt_labels': [np.array([0, 1, 0]), np.array([1, 0, 0])],
    'class_freq': np.array([3, 2, 1]),
    'condition_prob': np.eye(3),
    'names': np.array(['a', 'b']),
    'head': {np.int64(0), np.int64(2)},
    'others': (frozenset({1}), {'x': None, 'y': True}, 'text', b'bytes', 2.5, 1 + 2j, np.float32(0.5)),
    'ragged': np.array([[1], [2, 3]], dtype=object),
}


class Calls:
    """Pickles into a call."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def write(path, content, protocol=2):
    path.write_bytes(pickle.dumps(content, protocol=protocol))
    return str(path)


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_data_come_through(tmp_path, protocol):
    read = load_restricted_pickle(write(tmp_path / 'a.pkl', DATA, protocol))
    assert list(read) == list(DATA)
    for key in ('class_freq', 'condition_prob', 'names'):
        assert read[key].dtype == DATA[key].dtype
        np.testing.assert_array_equal(read[key], DATA[key])
    np.testing.assert_array_equal(read['gt_labels'], DATA['gt_labels'])
    assert read['head'] == {0, 2} and read['others'] == DATA['others'] and read['ragged'].tolist() == [[1], [2, 3]]


@pytest.mark.parametrize('core', [b'numpy.core.multiarray', b'numpy._core.multiarray'])
def test_names_of_both_numpy_versions(tmp_path, core):
    content = pickle.dumps(DATA, protocol=0).replace(b'numpy._core.multiarray', b'numpy.core.multiarray')
    (tmp_path / 'a.pkl').write_bytes(content.replace(b'numpy.core.multiarray', core))
    np.testing.assert_array_equal(load_restricted_pickle(str(tmp_path / 'a.pkl'))['class_freq'], [3, 2, 1])


def test_a_pickle_of_python_2(tmp_path):
    # A set and an array as Python 2 and numpy 1 write them with protocol 0: bytes are texts there.
    content = (
        b"(dp0\nS'head'\np1\nc__builtin__\nset\np2\n((lp3\nI4\natp4\nRp5\nsS'n'\np6\ncnumpy.core.multiarray\n_reconstruct"
        b"\np7\n(cnumpy\nndarray\np8\n(I0\ntp9\nS'b'\np10\ntp11\nRp12\n(I1\n(I1\ntp13\ncnumpy\ndtype\np14\n(S'i8'\np15\n"
        b"I0\nI1\ntp16\nRp17\n(I3\nS'<'\np18\nNNNI-1\nI-1\nI0\ntp19\nbI00\nS'\\x07\\x00\\x00\\x00\\x00\\x00\\x00\\x80'"
        b'\np20\ntp21\nbs.'
    )
    (tmp_path / 'a.pkl').write_bytes(content)
    read = load_restricted_pickle(str(tmp_path / 'a.pkl'))
    assert read['head'] == {4} and read['n'].tolist() == [7 - 2**63]


@pytest.mark.parametrize(
    ('function', 'args', 'name'),
    [
        (subprocess.check_output, (['touch', 'done'],), 'check_output'),
        (eval, ("open('done', 'w')",), 'builtins.eval'),
        (getattr, ({}, 'items'), 'builtins.getattr'),
        (np.fromfile, ('done',), 'numpy.fromfile'),
        (np.load, ('done',), 'numpy'),
        (Calls, (len, []), 'Calls'),
    ],
    ids=lambda x: getattr(x, '__name__', None),
)
@pytest.mark.parametrize('protocol', [0, 2, 5])
def test_calls_are_refused_and_named(tmp_path, monkeypatch, function, args, name, protocol):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / 'a.pkl', {'class_freq': [1], 'more': Calls(function, *args)}, protocol)
    with pytest.raises(InputError, match=rf"(?s)The pickle '{path}' asks for .*{name}.*only numpy arrays") as e:
        load_restricted_pickle(path)
    assert 'published file' in str(e.value)
    assert not (tmp_path / 'done').exists()


def test_os_system_is_refused(tmp_path):
    (tmp_path / 'a.pkl').write_bytes(b"cos\nsystem\n(S'touch done'\ntR.")
    with pytest.raises(InputError, match=r'asks for os\.system'):
        load_restricted_pickle(str(tmp_path / 'a.pkl'))


@pytest.mark.parametrize('code', ['O', 'f8'])
def test_only_plain_types_of_arrays(tmp_path, code):
    array = np.zeros(2, [('a', code)])
    with pytest.raises(InputError, match='not one of numbers'):
        load_restricted_pickle(write(tmp_path / 'a.pkl', array))


@pytest.mark.parametrize('content', [b'', b'554625\n118113\n', b'\x80\x02}q', b'c_codecs\nencode\n(Vx\nVhex\ntR.'])
def test_damaged_files(tmp_path, content):
    (tmp_path / 'a.pkl').write_bytes(content)
    if content[:1] == b'5':
        content = b'text'
    with pytest.raises(InputError, match='cannot be read as a pickle'):
        load_restricted_pickle(str(tmp_path / 'a.pkl'))


def test_missing_file():
    with pytest.raises(InputError, match=r"'nowhere\.pkl' does not exist"):
        load_restricted_pickle('nowhere.pkl')
