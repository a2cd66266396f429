"""The command's start: what is imported, and what is registered."""

import json
import os
import subprocess
import sys

from mmlt.cli import VERBS

# Says at the end what was imported and which calls to the network there were.
WATCHED = """
import contextlib, io, json, sys
sockets = []
sys.addaudithook(lambda event, _: sockets.append(event) if event.startswith('socket.') else None)

def run(main, *words):
    sys.argv = ['mmlt', *words]
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            code = main()
        except SystemExit as e:
            code = e.code
    return code or 0, said.getvalue()

"""
HEAVY = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmpretrain', 'open_clip', 'matplotlib')
REGISTERED = """
from mmengine import registry
import mmlt
found = {name: sorted(own.children['mmlt'].module_dict) for name, own in vars(registry).items()
         if isinstance(own, registry.Registry) and 'mmlt' in own.children}
# Those of MMPretrain have ours as children as well.
from mmpretrain import registry as theirs
found.update({f'mmpretrain {name}': sorted(own.module_dict) for name, own in vars(theirs).items()
              if isinstance(own, registry.Registry)})
facts = dict(found=found, public=sorted(mmlt.__all__), fit=mmlt.fit.__name__, hook=sys.excepthook.__name__)
"""


def watched(repo, code, tmp_path):
    """What a fresh process leaves as ``answer``, and its calls to the network."""
    code = f'{WATCHED}{code}\nprint(json.dumps([answer, sockets, sorted(sys.modules)]))'
    env = {**os.environ, 'PYTHONPATH': str(repo)}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_help_and_mistakes_wait_for_nothing(repo, tmp_path):
    lines = [['--help'], ['--version'], ['trian'], *([verb, '--help'] for verb in VERBS)]
    lines += [['import', 'ballad', '--help'], ['train'], ['train', 'x', '--work-dir', ''], ['infer', 'x']]
    code = f'import mmlt_command\nanswer = [run(mmlt_command.main, *words) for words in {lines!r}]'
    answer, sockets, modules = watched(repo, code, tmp_path)
    assert not [name for name in modules if name.partition('.')[0] in HEAVY]
    assert not sockets
    for words, (_, said) in zip(lines, answer):
        if words[-1] == '--help':
            assert f'mmlt {" ".join(words[:-1])}' in said, words
    # As with all of mmlt imported; sys.exit says a sentence after this.
    assert [code for code, _ in answer] == [0, 0, 2] + [0] * (len(VERBS) + 1) + [
        2, 'mmlt: --work-dir is given and empty: give a value, or leave it out.', 2,
    ]  # fmt: skip


def test_a_verb_has_all_that_the_package_has(repo, tmp_path):
    plain, sockets, _ = watched(repo, f'{REGISTERED}\nanswer = facts', tmp_path)
    assert not sockets and plain['fit'] == 'fit' and plain['hook'] == '_tell'
    assert {'TextClsHead', 'OpenCLIPVision'} <= set(plain['found']['MODELS'])
    code = (
        f'import mmlt_command\ndone = run(mmlt_command.main, "config", "printed")\n{REGISTERED}\nanswer = [done, facts]'
    )
    ((code, said), facts), sockets, _ = watched(repo, code, tmp_path)
    assert code == 0 and 'clip_tiny_printed-characters' in said and not sockets
    assert facts == plain


def test_the_script_runs_verbs(repo, tmp_path):
    """Also where a wrong input ends them."""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-m', 'mmlt_command', 'config', 'nothing-like-it', '--copy', 'x.py'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(repo)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and done.stderr.startswith("mmlt: The config 'nothing-like-it' does not exist")
