"""A process that makes exports, sets and refined outlines, and reads annotations, for the server.

    python -m simpleseg_mm.serving.worker MAX_BYTES     # requests come by its input

A request is a line of JSON (``task``, what it needs, ``seconds`` and ``length``) and a body of
``length`` bytes; an answer a line (``length``, and what the task gives, or ``error``) and so many
bytes.
"""
import json
import os
import signal
import sys
from pathlib import Path

from ..export import notes_of
from . import edited, packing, reading, refine
from .http import parse_json


def main() -> int:
    """Answer requests until the input ends."""
    limits = sys.platform != 'win32'
    if limits:
        import resource  # of Unix alone
        resource.setrlimit(resource.RLIMIT_DATA, (int(sys.argv[1]), ) * 2)
        os.nice(10)
    source, out = sys.stdin.buffer, sys.stdout.buffer
    while line := source.readline():
        request = json.loads(line)
        if limits:  # where the server has gone, nobody else ends it
            signal.setitimer(signal.ITIMER_REAL, 2 * request['seconds'] + 5)
        row, content = _answer(request, source.read(request['length']))
        if limits:
            signal.setitimer(signal.ITIMER_REAL, 0)
        out.write(json.dumps(dict(row, length=len(content))).encode() + b'\n' + content)
        out.flush()
    return 0


def _answer(request: dict, body: bytes) -> tuple[dict, bytes]:
    try:
        return _TASKS[request['task']](request, body)
    except (ValueError, RecursionError) as error:
        return dict(error=str(error)), b''
    except OSError as error:
        return dict(error=f"the server's disk fails: {error.strerror}"), b''
    except MemoryError:
        return dict(error='the work takes too much memory; send fewer objects or vertices, or '
                          'the objects in parts'), b''


def _export(request: dict, body: bytes) -> tuple[dict, bytes]:
    row = parse_json(body)
    results = edited.read_objects(request['name'], tuple(request['size']), row.get('objects'))
    file, kind, content = edited.write(results, row.get('format'), row.get('exact') is True)
    return dict(file=file, kind=kind, notes=notes_of(results, row['format'])), content


def _refine(request: dict, body: bytes) -> tuple[dict, bytes]:
    return {}, json.dumps(refine.refine(parse_json(body))).encode()


def _pack(request: dict, body: bytes) -> tuple[dict, bytes]:
    return dict(notes=packing.pack_set(Path(request['folder']), **json.loads(body))), b''


def _read(request: dict, body: bytes) -> tuple[dict, bytes]:
    return {}, json.dumps(reading.read_files(body), ensure_ascii=False).encode()


_TASKS = dict(export=_export, pack=_pack, read=_read, refine=_refine)


if __name__ == '__main__':
    sys.exit(main())
