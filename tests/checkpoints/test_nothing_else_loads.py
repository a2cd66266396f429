"""Files are read in one place and written in one; this looks at the source for functions that would do it otherwise."""

import re

import pytest

# What may run what it reads, or leave half of a file, and the only files that may have it.
FUNCTIONS = {
    r'torch\.load\(': {'mmlt/checkpoints/restricted_pickle.py'},
    r'weights_only=False': set(),
    r'\b_?pickle\.loads?\(|pickle\.Unpickler\(': set(),
    r'torch\.(jit|export)\.load\(': {'mmlt/checkpoints/export.py'},  # a file that it has just written, to compare it
    r'Config\.fromstring\(': set(),
    r'yaml\.(unsafe_|full_)?load\(': {'mmlt/checkpoints/file_handlers.py'},  # by a safe loader
    r'np\.load\((?!.*allow_pickle=False)': set(),
    r'load_url\(|load_state_dict_from_url\(|model_zoo': set(),
    r'(?<![\w.])(eval|exec)\(': set(),
    r'os\.(replace|rename)\(|NamedTemporaryFile|mkstemp': {
        'mmlt/checkpoints/write.py',
        'mmlt/engine/hooks/more.py',  # an earlier result gets another name
    },
}


@pytest.mark.parametrize('function', FUNCTIONS)
def test_files_are_read_and_written_in_one_place(repo, function):
    files = [*repo.glob('mmlt/**/*.py'), *repo.glob('tools/**/*.py')]
    assert len(files) > 150
    found = set()
    for path in files:
        lines = [line.split('``')[0] for line in path.read_text().splitlines()]
        if any(re.search(function, line.split('#')[0]) for line in lines):
            found.add(path.relative_to(repo).as_posix())
    assert found == FUNCTIONS[function]
