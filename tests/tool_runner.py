"""Runs tools in forks of one process that has loaded the libraries: a run begins in no time.

A line of JSON on stdin is a run: ``args`` of Python, ``folder`` for what it writes to ``out`` and
``err``, ``seconds`` after which it gets the signal ``number``, where it is not null. The answer is
its exit code.
"""
import json
import os
import runpy
import signal
import sys
import time

import engine_standin  # noqa: F401
import torch

import simpleseg_mm.evaluation  # noqa: F401
import simpleseg_mm.models  # noqa: F401
import simpleseg_mm.visualization  # noqa: F401

torch.set_num_threads(1)


def wait(pid, seconds, number):
    deadline = None if seconds is None else time.monotonic() + seconds
    while deadline is None or time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return status
        time.sleep(0.01)
    os.kill(pid, number)
    return os.waitpid(pid, 0)[1]


for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(wait(child, job['seconds'], job['number'])), flush=True)
else:
    sys.exit()

signal.signal(signal.SIGINT, signal.default_int_handler)
for descriptor, name in ((1, 'out'), (2, 'err')):
    os.dup2(os.open(os.path.join(job['folder'], name), os.O_CREAT | os.O_WRONLY), descriptor)
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
sys.argv = job['args']
runpy.run_path(job['args'][0], run_name='__main__')
