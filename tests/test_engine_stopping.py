"""Ctrl-C, SIGTERM and SIGKILL of a training run: one line, an exact resume, nobody left behind."""
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import test_engine_nano
import test_engine_rl
import test_engine_runner
import torch
from engine_standin import BASE, ROOT, run_tool

from simpleseg_mm.engine import launch, load_sharded

pytestmark = pytest.mark.usefixtures('one_thread')
ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=f'{ROOT}:{ROOT}/tests')
#: two batches an update
TOY = {'train_cfg.global_batch_size': 8, 'train_dataloader.num_workers': 1}


@pytest.fixture(scope='module')
def tool(tmp_path_factory):
    """Run a tool, without loading its libraries anew; a signal comes after so many seconds."""
    runner = subprocess.Popen([sys.executable, ROOT / 'tests/tool_runner.py'], text=True,
                              env=ENVIRONMENT, cwd=ROOT, stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE)

    def run(*args, seconds=None, number=signal.SIGINT):
        folder = tmp_path_factory.mktemp('output')
        print(json.dumps(dict(args=list(map(str, args)), folder=str(folder), seconds=seconds,
                              number=int(number))), file=runner.stdin, flush=True)
        code = int(runner.stdout.readline())
        return SimpleNamespace(returncode=code, stdout=(folder / 'out').read_text(),
                               stderr=(folder / 'err').read_text())

    yield run
    runner.stdin.close()
    runner.wait()


@pytest.fixture(scope='module')
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp('toy') / 'toy.py'
    path.write_text(test_engine_runner.CONFIG)
    return path, TOY


@pytest.fixture(scope='module')
def plain(tmp_path_factory):
    """Without a best checkpoint."""
    path = tmp_path_factory.mktemp('plain') / 'plain.py'
    path.write_text(test_engine_runner.CONFIG)
    return path, {'default_hooks.checkpoint.save_best': None}


nano = pytest.fixture(scope='module')(lambda nano_config: (nano_config, {}))
nano_config = pytest.fixture(scope='module')(test_engine_nano.config.__wrapped__)
rl = pytest.fixture(scope='module')(lambda rl_config: (rl_config, test_engine_rl.WHOLE))
rl_config = pytest.fixture(scope='module')(test_engine_rl.config.__wrapped__)
_WHOLE = {}


@pytest.fixture
def kind(request):
    return request.getfixturevalue(request.param)


def arguments(run, work_dir, *more, **options):
    config, always = run
    options = {**always, 'default_hooks.logger.interval': 1, **options}
    return [config, '--work-dir', work_dir, *more, '--cfg-options',
            *test_engine_rl.as_arguments(options)]


def undisturbed(tool, run, folder):
    """Work directory of the run that nothing disturbs."""
    if run[0] not in _WHOLE:
        result = tool('tools/train.py', *arguments(run, folder))
        assert result.returncode == 0, result.stderr[-2000:]
        _WHOLE[run[0]] = folder
    return _WHOLE[run[0]]


def validations(work_dir):
    """step -> metrics, of all parts of a run."""
    rows = [json.loads(line) for log in sorted(Path(work_dir).glob('*/vis_data/scalars.json'))
            for line in log.read_text().splitlines()]
    return {row['step']: {key: value for key, value in row.items()
                          if key.startswith('res/') and 'time' not in key}
            for row in rows if any(key.startswith('res/') for key in row)}


def assert_same_end(first, second):
    last = max((int(path.stem[5:]) for path in first.glob('iter_*.pth')))
    one, two = (torch.load(folder / f'iter_{last}.pth', weights_only=False)
                for folder in (first, second))
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        test_engine_runner.assert_same(one[key], two[key], key)
    assert validations(first) == validations(second)
    best = [sorted(folder.glob('best_*.pth')) for folder in (first, second)]
    assert [path.name for path in best[0]] == [path.name for path in best[1]]
    for one, two in zip(*best):
        test_engine_runner.assert_same(*(torch.load(path, weights_only=False)['state_dict']
                                         for path in (one, two)), 'best')


def assert_one_line(code, out, err, status=130, name='Ctrl-C'):
    assert code == status, (code, out[-2000:], err[-2000:])
    assert 'Traceback' not in out + err, (out + err)[-3000:]
    assert out.splitlines()[-1].startswith(f'Stopped by {name}'), out[-500:]
    assert (out + err).count('Stopped by') == 1


def stop(at, method=None, call=1, number=signal.SIGINT, **more):
    options = dict(type='KillHook', at=at, call=call, number=int(number), **more)
    if method:
        options['method'] = method
    return {f'default_hooks.kill.{key}': value for key, value in options.items()}


# --- moments ------------------------------------------------------------------------------------
SLOW = pytest.mark.slow


@pytest.mark.parametrize('mode, environment, signals, code, said', [
    ('at once', {}, [2], 130, 'Stopped by Ctrl-C: nothing was saved'),
    ('at once', {}, [15], 143, 'Stopped by SIGTERM: nothing was saved'),
    ('at once', dict(RANK='1'), [2], 130, ''),
    ('defer', {}, [2], 0, 'asked 2'), ('defer', {}, [15], 0, 'asked 15'),
    ('defer', {}, [2, 2], 0, 'asked 2'),  # as `timeout` sends it
    ('defer', {}, [2, None, 2], -2, ''), ('defer', {}, [2, None, 15], -15, ''),
    ('defer', dict(TORCHELASTIC_RUN_ID='x'), [2, None, 2], 0, 'asked 2'),
    ('stuck', {}, [2, None, 2], -2, '')])  # in C
def test_signals(mode, environment, signals, code, said):
    script = """
import ctypes, sys, time
from simpleseg_mm import stopping
stopping.end_in_one_line()
if sys.argv[1] != 'at once':
    stopping.defer()
print('ready', flush=True)
if sys.argv[1] == 'stuck':
    while True:
        ctypes.CDLL(None).usleep(100_000_000)
end = time.monotonic() + 3
while time.monotonic() < end:
    time.sleep(0.1)
print('asked', stopping.asked())
"""
    process = subprocess.Popen([sys.executable, '-c', script, mode], text=True, cwd=ROOT,
                               env=ENVIRONMENT | environment, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    assert process.stdout.readline() == 'ready\n'
    for number in signals:
        if number is None:
            time.sleep(1)
        else:
            process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (code, '') and out.startswith(said)
    assert out.count('\n') == bool(said)


@pytest.mark.parametrize('kind, moment, step', [
    pytest.param('toy', stop(6, 'model.train_step', 2), 7, id='between two batches of an update'),
    pytest.param('toy', stop(7, 'model.val_step', 2), 8, id='validation', marks=SLOW),
    pytest.param('plain', stop(3, 'model.val_step'), 4, id='validation without a best',
                 marks=SLOW),
    pytest.param('toy', stop(7, 'train_loop.runner.save_checkpoint', number=signal.SIGTERM), 8,
                 id='checkpoint', marks=SLOW),
    pytest.param('toy', stop(11, 'model.val_step'), 12, id='last validation', marks=SLOW),
    pytest.param('nano', stop(2, 'model.mllm.hidden_states'), 3, id='step', marks=SLOW),
    pytest.param('nano', stop(2, 'model.mllm.encoder.encode'), 3, id='encoding', marks=SLOW),
    pytest.param('rl', stop(3, 'model.mllm.writer.decode', 3), 3, id='rollout', marks=SLOW),
    pytest.param('rl', stop(3, 'optim_wrapper.backward', 4), 4, id='update', marks=SLOW),
    pytest.param('rl', stop(3, 'model.val_step'), 4, id='validation of RL', marks=SLOW),
], indirect=['kind'])
def test_stopped_and_resumed_equals_never_stopped(tool, kind, moment, step, tmp_path):
    number = moment['default_hooks.kill.number']
    whole, stopped = undisturbed(tool, kind, tmp_path / 'whole'), tmp_path / 'stopped'
    result = tool('tools/train.py', *arguments(kind, stopped, **moment))
    assert_one_line(result.returncode, result.stdout, result.stderr, 128 + number,
                    'Ctrl-C' if number == signal.SIGINT else 'SIGTERM')
    checkpoint = stopped / f'iter_{step}.pth'
    assert launch.find_resumable(str(stopped)) == str(checkpoint)
    line = result.stdout.splitlines()[-1]
    assert f'after iteration {step} of' in line and line.endswith(f'--resume {checkpoint}')
    result = tool('tools/train.py', *arguments(kind, stopped, '--resume'))
    assert result.returncode == 0, result.stderr[-2000:]
    assert_same_end(whole, stopped)


@pytest.mark.parametrize('moment', [
    pytest.param(stop(0), id='first step', marks=SLOW),
    pytest.param(stop(0, 'model.mllm.writer.decode', 2), id='first rollout')])
def test_before_the_first_update_there_is_nothing_to_save(tool, request, moment, tmp_path):
    kind = request.getfixturevalue('rl' if len(moment) > 4 else 'toy')
    result = tool('tools/train.py', *arguments(kind, tmp_path, **moment))
    assert_one_line(result.returncode, result.stdout, result.stderr)
    if kind[0].name == 'rl.py':
        assert 'nothing to save' in result.stdout.splitlines()[-1]
        assert launch.find_resumable(str(tmp_path)) is None


@pytest.mark.parametrize('rank', [pytest.param(0, marks=SLOW), pytest.param(1, marks=SLOW)])
def test_one_of_two_processes_is_asked_and_both_stop(toy, rank, tmp_path):
    result = run_tool('train.py', *arguments(
        toy, tmp_path, '--launcher', 'pytorch', **stop(3, 'model.val_step', rank=rank), **{
            'train_dataloader.batch_size': 2, 'train_cfg.val_interval': 2}), processes=2)
    lines = [line for line in result.stdout.splitlines() if line.startswith('Stopped by')]
    assert result.returncode and len(lines) == 1 and 'after iteration 4 of' in lines[0], (
        result.stdout[-1500:], result.stderr[-1500:])
    assert launch.find_resumable(str(tmp_path)).endswith('iter_4.pth')


@pytest.mark.slow
@pytest.mark.parametrize('method', ['val_step', 'train_step'])
def test_split_weights_stop_and_resume(nano, method, tmp_path):
    """FSDP on two processes, of which the second is asked: in a validation, whose weights are
    whole, and in a step."""
    path = tmp_path / 'split.py'
    path.write_text(f"_base_ = ['{nano[0]}', '{BASE}/strategies/fsdp.py']\n")

    def run(folder, *more, **options):
        return run_tool('train.py', *arguments((path, {}), folder, '--launcher', 'pytorch', *more,
                                               **options, **{
            'train_dataloader.batch_size': 2, 'train_cfg.max_iters': 4,
            'train_cfg.val_interval': 2}), processes=2)

    assert run(tmp_path / 'whole').returncode == 0
    result = run(tmp_path / 'stopped', **stop(1, f'model.{method}', rank=1))
    lines = [line for line in result.stdout.splitlines() if line.startswith('Stopped by')]
    assert result.returncode and len(lines) == 1 and 'after iteration 2 of' in lines[0], (
        result.stdout[-1500:], result.stderr[-1500:])
    result = run(tmp_path / 'stopped', '--resume')
    assert result.returncode == 0, result.stderr[-2000:]
    one, two = (load_sharded(str(tmp_path / f'{name}/iter_4.pth')) for name in (
        'whole', 'stopped'))
    for key in ('state_dict', 'optimizer'):
        test_engine_runner.assert_same(one[key], two[key], key)
    assert validations(tmp_path / 'whole') == validations(tmp_path / 'stopped')


# --- random moments -----------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize('kind', ['nano', 'rl'], indirect=True)
def test_stopped_at_random_moments(tool, kind, tmp_path):
    begun = time.monotonic()
    whole = undisturbed(tool, kind, tmp_path / 'whole')
    length, rng, ends = time.monotonic() - begun, random.Random(0), []
    for i in range(10):
        folder = tmp_path / str(i)
        result = tool('tools/train.py', *arguments(kind, folder), seconds=rng.uniform(0, length))
        if result.returncode:  # else it had ended before
            assert_one_line(result.returncode, result.stdout, result.stderr)
        ends.append(([''] + result.stdout.splitlines())[-1][-150:])
        result = tool('tools/train.py', *arguments(kind, folder, '--resume'))
        assert result.returncode == 0, result.stderr[-2000:]
        assert_same_end(whole, folder)
    print(*ends, sep='\n')


def interrupted(args, seconds, number=signal.SIGINT):
    """Exit code and output of a tool, in a process of its own, that gets a signal after so many
    seconds."""
    process = subprocess.Popen([sys.executable, *map(str, args)], text=True, env=ENVIRONMENT,
                               cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(number)
        out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.parametrize('args, seconds', [
    (['tools/test.py', 'CONFIG', 'none'], 1), (['tools/train.py', 'CONFIG'], 1),
    (['tools/annotate.py', 'x.py'], 0.5),
    (['tools/dataset_converters/own_data.py', 'x.json', 'y'], 0.5),
    (['-m', 'simpleseg_mm.cli', 'segment', 'simpleseg_mm/serving/static/example.jpg', 'a dog'],
     1)])
@pytest.mark.parametrize('number', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=SLOW)])
def test_every_tool_ends_in_one_line(toy, args, seconds, number, tmp_path):
    args = [str(toy[0]) if arg == 'CONFIG' else arg for arg in args]
    if 'tools/t' in args[0]:
        args += ['--work-dir', tmp_path]
    code, out, err = interrupted(args, seconds, number)
    assert_one_line(code, out, err, 128 + number,
                    'Ctrl-C' if number == signal.SIGINT else 'SIGTERM')


# --- workers ------------------------------------------------------------------------------------
def test_forked_workers_end_by_sigterm_wherever_they_wait():
    """A handler in Python does not run where another thread gets the signal."""
    code = """
import multiprocessing, signal
from simpleseg_mm import stopping
stopping.end_in_one_line()
def handlers(_):
    return [str(signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
with multiprocessing.get_context('fork').Pool(1) as pool:
    print(pool.map(handlers, [0])[0])
for _ in range(10):
    with multiprocessing.get_context('fork').Pool(3) as pool:
        pool.map(abs, range(3))
"""
    done = subprocess.run([sys.executable, '-c', code], env=ENVIRONMENT, timeout=300, text=True,
                          capture_output=True)
    assert (done.returncode, done.stdout.strip()) == (
        0, str([str(signal.SIG_IGN), str(signal.SIG_DFL)])), done.stderr


def test_a_signal_that_comes_while_a_worker_is_forked_ends_it():
    """Python forgets signals that come before the new process runs its hooks. Its parent ends
    after SIGTERM, and a mask of the parent's own stays."""
    code = """
import os, signal, sys, time
from simpleseg_mm import stopping
stopping.end_in_one_line()
def ends_of(count):
    ends = set()
    for _ in range(count):
        child = os.fork()
        if not child:
            time.sleep(0.5)
            os._exit(int(signal.SIGUSR1 in signal.pthread_sigmask(signal.SIG_BLOCK, [])))
        os.kill(child, signal.SIGTERM)
        ends.add(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    return ends
print(ends_of(20))
for how in (signal.SIG_BLOCK, signal.SIG_UNBLOCK):
    signal.pthread_sigmask(how, [signal.SIGUSR1, signal.SIGTERM])
    print(ends_of(1))
    assert (signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])) == (
        how == signal.SIG_BLOCK)
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run([sys.executable, '-c', code], env=ENVIRONMENT, timeout=300, text=True,
                          capture_output=True)
    assert (done.returncode, done.stdout.splitlines()[:3]) == (143, ['{-15}', '{1}', '{-15}']), (
        done.stdout, done.stderr)


def children(pid):
    found = subprocess.run(['ps', '-o', 'pid=', '--ppid', str(pid)], text=True,
                           capture_output=True).stdout.split()
    return [int(child) for child in found]


def alive(pid):
    try:
        return Path(f'/proc/{pid}/stat').read_text().rsplit(')', 1)[1].split()[0] != 'Z'
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path('/proc').is_dir(), reason='looks at processes in /proc')
@pytest.mark.slow
def test_workers_leave_with_a_killed_trainer(toy, tmp_path):
    """Busy ones as well, which wait for a pipe that nobody reads."""
    process = subprocess.Popen([sys.executable, 'tools/train.py', *map(str, arguments(
        toy, tmp_path, **{'train_dataloader.num_workers': 3, 'train_cfg.max_iters': 100000,
                          'train_cfg.val_interval': 100000}))], env=ENVIRONMENT, cwd=ROOT,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(children(process.pid)) < 3 and time.monotonic() < deadline:
        time.sleep(0.2)
    workers = children(process.pid)
    time.sleep(1)
    process.kill()
    process.wait()
    assert len(workers) == 3
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, workers))
