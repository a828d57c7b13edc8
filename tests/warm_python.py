"""A Python that has loaded the libraries: each run of a script is a fork of it.

:func:`serve` answers at a socket. As a program, ``python -SE warm_python.py SOCKET SCRIPT ARGS``
asks there: the fork has this process's folder, environment, input and outputs, and gives it its
exit code. It loads next to nothing itself.
"""
import os
import socket
import sys


def listen(path: str) -> socket.socket:
    """Who asks at ``path`` from now on waits for :func:`serve`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.bind(path)
    listener.listen()
    return listener


def serve(listener: socket.socket) -> None:
    """Answer until this process is killed."""
    while True:
        connection, _ = listener.accept()
        if not os.fork():
            _answer(connection)
        connection.close()


def _answer(connection: socket.socket) -> None:
    import json
    message, descriptors, *_ = socket.recv_fds(connection, 1 << 20, 3)
    job = json.loads(message)
    worker = os.fork()
    if worker:
        status = os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1])
        connection.send(bytes([status % 256]))
        os._exit(0)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.environ.clear()
    os.environ.update(job['environment'])
    os.chdir(job['folder'])
    os._exit(_run(job['args']))


def _run(args: list[str]) -> int:
    import runpy
    import traceback
    sys.argv = args
    sys.path[:0] = [os.path.dirname(os.path.abspath(args[0])),
                    *filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))]
    status = 0
    try:
        runpy.run_path(args[0], run_name='__main__')
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    return status


def write_commands(folder: str, path: str) -> None:
    """``python`` and ``simpleseg`` that ask at ``path``; all but scripts goes to the real ones."""
    ask = f'exec "{sys.executable}" -SE "{os.path.abspath(__file__)}" "{path}"'
    simpleseg = os.path.join(os.path.dirname(sys.executable), 'simpleseg')
    for name, lines in (('python', f'case "$1" in *.py) {ask} "$@";; esac\n'
                                   f'exec "{sys.executable}" "$@"'),
                        ('simpleseg', f'{ask} "{simpleseg}" "$@"')):
        with open(os.path.join(folder, name), 'w') as file:
            file.write(f'#!/bin/sh\n{lines}\n')
        os.chmod(file.name, 0o755)


def _ask(path: str, args: list[str]) -> int:
    import json
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.connect(path)
        job = dict(args=args, folder=os.getcwd(), environment=dict(os.environ))
        socket.send_fds(connection, [json.dumps(job).encode()], [0, 1, 2])
        answer = connection.recv(1)
    return answer[0] if answer else 1


if __name__ == '__main__':
    sys.exit(_ask(sys.argv[1], sys.argv[2:]))
