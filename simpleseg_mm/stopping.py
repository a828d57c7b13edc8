"""Ctrl-C and SIGTERM end a tool with one line; its worker processes leave with it.

Imports the standard library alone: a tool calls :func:`end_in_one_line` before it loads others.
"""
import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time

_NAMES = {signal.SIGINT: 'Ctrl-C', signal.SIGTERM: 'SIGTERM'}
_AGAIN = 'nothing was saved; the same command starts again.'
#: seconds in which a signal may come twice: `timeout` and wrappers pass on what the terminal or
#: their own group has given to all processes, torchrun later than others
_TWICE, _TWICE_BY_TORCHRUN = 0.2, 3.0


class _State:
    process = parent = 0
    line = _AGAIN
    deferred = False
    asked = 0


def end_in_one_line(line: str = _AGAIN) -> None:
    """From here on, SIGINT and SIGTERM end this process at once, with status 130 and 143.

    Without a traceback: the line ``Stopped by ...: LINE`` is the last that is written, by the
    first process where a launcher has started several. What is being written may stay
    half-written, as after SIGKILL. Processes that ``multiprocessing`` starts from it leave with
    it, whatever ends it, and take no Ctrl-C.

    Args:
        line: what is saved, and how to go on.
    """
    if multiprocessing.current_process().name != 'MainProcess':
        # the tool's module, loaded by its worker as ``__mp_main__``
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _State.parent = os.getppid()
        _watch()
        return
    if _State.process != os.getpid():
        os.register_at_fork(before=_before_fork, after_in_parent=_after_fork,
                            after_in_child=_in_fork)
    _State.process, _State.line = os.getpid(), line
    for number in _NAMES:
        signal.signal(number, _on_signal)


def end_at_once(line: str) -> None:
    """From here on a signal ends the process with another line, where one would end it at all."""
    _State.line, _State.deferred = line, False


def defer() -> None:
    """From here on the first signal is only kept for :func:`asked`; a second ends the process."""
    _State.deferred = True


def finished() -> None:
    """From here on a signal changes nothing here: all is saved, or a server takes it itself."""
    for number in _NAMES:
        signal.signal(number, signal.SIG_IGN)


def asked() -> int:
    """Number of the signal that asked this process to stop, or 0."""
    return _State.asked


def stopped_by(number: int) -> str:
    """How every last line begins."""
    return f'Stopped by {_NAMES[signal.Signals(number)]}'


def _on_signal(number: int, frame) -> None:
    if os.getpid() != _State.process:  # a forked worker: its parent decides
        if number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        return
    if not _State.deferred:
        _end(number, _State.line)
    if _State.asked:
        return
    _State.asked = number
    wait = _TWICE_BY_TORCHRUN if 'TORCHELASTIC_RUN_ID' in os.environ else _TWICE
    timer = threading.Timer(wait, _end_by_the_next)
    timer.daemon = True
    timer.start()
    if sys.stderr.isatty() and _is_first():
        os.write(2, b'\nStopping at the next safe point; Ctrl-C again ends at once.\n')


def _end_by_the_next() -> None:
    """Let the system end the process by the next signal, also where Python does not get to run;
    from a thread, where :mod:`signal` cannot."""
    for number in _NAMES:
        ctypes.CDLL(None).signal(int(number), None)  # SIG_DFL


def _end(number: int, line: str) -> None:
    if _is_first():
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (RuntimeError, OSError, ValueError):  # it was being written to, or is closed
                pass
        try:
            os.write(1, f'{stopped_by(number)}: {line}\n'.encode())
        except OSError:  # nobody reads it
            pass
    os._exit(128 + number)


def _is_first() -> bool:
    ranks = (os.environ.get(name) for name in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'))
    return next((rank for rank in ranks if rank), '0') == '0'


# --- forked processes ---------------------------------------------------------------------------
_mask = threading.local()  # signals that a thread kept waiting before it forked


def _before_fork() -> None:
    """SIGTERM waits: Python forgets, in the new process, all that came before its hooks run."""
    _State.parent = os.getpid()
    _mask.before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _mask.before)


def _in_fork() -> None:
    """A forked worker takes no Ctrl-C, and SIGTERM ends it where it waits: a handler in Python
    would not get to run there."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _after_fork()
    _watch()


def _watch() -> None:
    """A worker of PyTorch's loader does not end by itself where it waits for a pipe to be read:
    its siblings hold the pipe's other end."""
    parent, show = _State.parent, sys.excepthook

    def leave() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    def quiet(*error) -> None:  # a connection may end before the parent is gone
        time.sleep(0.1)
        if os.getppid() == parent:
            show(*error)

    sys.excepthook = quiet
    threading.Thread(target=leave, daemon=True).start()
