"""Runs the command line tools in forked processes that have everything imported: a start takes milliseconds.

One JSON line a command on stdin: {"start": argv, "log": file, "cwd": folder, "file_size": bytes or null} answers with
the process id, {"wait": pid} with its exit status (negative: the signal).
"""

import json
import os
import resource
import signal
import sys

import torch

import mmlt  # noqa: F401
from mmlt.cli import test, train

TOOLS = {'train': train, 'test': test}


def start(argv, log, cwd, file_size=None):
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        os.setsid()
        os.chdir(cwd)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(file, number)
        torch.set_num_threads(1)
        if file_size is not None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
        TOOLS[argv[0]].main(argv[1:])
        status = 0
    except SystemExit as e:
        status = e.code if isinstance(e.code, int) else 1 if e.code else 0
        if not isinstance(e.code, int) and e.code:
            os.write(2, f'{e.code}\n'.encode())
    except BaseException:
        import traceback

        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


for line in sys.stdin:
    command = json.loads(line)
    if 'start' in command:
        print(start(command['start'], command['log'], command['cwd'], command.get('file_size')), flush=True)
    else:
        print(os.waitstatus_to_exitcode(os.waitpid(command['wait'], 0)[1]), flush=True)
