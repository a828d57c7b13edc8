"""Pickles of any origin: plain content alone, in bounded time and memory."""
import io
import os
import pickle
import pickletools
from pathlib import Path

#: bytes of each opcode's argument; below 0: a line, or a length in 1, 4 or 8 bytes before it
_ARGUMENTS = {ord(code): op.arg.n if op.arg else 0 for code, op in pickletools.code2op.items()}
_LENGTHS = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4,
            pickletools.TAKEN_FROM_ARGUMENT4U: 4, pickletools.TAKEN_FROM_ARGUMENT8U: 8}
_TUPLES, _MEMO = b't)\x85\x86\x87', b'pr'
_ENDS = b'.ci\x93'  # STOP, and where a class is asked for, which the unpickler refuses
_LONGS = {0x8a: 8, 0x8b: 8, ord('I'): 18, ord('L'): 18}  # bytes from which a number is long
_LEAVES = {str, int, float, bool, type(None), bytes}
_CONTAINERS = {list, dict}
# Our choices: references are nested three deep, share nothing but texts, and have short numbers.
_MAX_DEPTH = 20
_MAX_SHARED = 4  # times the file's bytes: values that it may stand for
_MAX_LONGS = 10_000


class _PlainUnpickler(pickle.Unpickler):
    """Reads lists, dicts, strings, numbers and the like; refuses every class and function."""

    def find_class(self, module: str, name: str):
        raise pickle.UnpicklingError(f'it asks for {module}.{name}')

    def persistent_load(self, pid):
        raise pickle.UnpicklingError('it holds persistent ids')


def load_pickle(path: str | os.PathLike):
    """Content of a pickle that holds plain lists, dicts, strings and numbers and nothing else.

    Pickles of Python 2 are read too (byte strings as UTF-8, else Latin-1). Neither a memo that a
    few bytes make huge, nor lists that hold themselves or each other ever again, take more time
    or memory than the file's size allows.

    Raises:
        OSError: it cannot be read.
        ValueError: it holds anything else, or is broken; nothing of it has been run.
    """
    raw = Path(path).read_bytes()
    try:
        _check_opcodes(raw)
        for encoding in ('utf-8', 'latin1'):
            try:
                content = _PlainUnpickler(io.BytesIO(raw), encoding=encoding).load()
                break
            except UnicodeDecodeError as error:
                if encoding == 'latin1':  # it is in a text that Python 3 wrote
                    raise pickle.UnpicklingError(str(error)) from None
        _check_content(content, _MAX_SHARED * len(raw))
    except Exception as error:  # a broken pickle raises whatever its bytes lead to
        what = str(error)[:200] or type(error).__name__
        raise ValueError(
            f'{path} is refused: {what}. Only pickles of plain lists, dicts, strings and numbers '
            'are read; take the original file again, or convert it to JSON') from None
    return content


def _check_opcodes(raw: bytes) -> None:
    """Refuse what costs more than its bytes before anything is built."""
    place, end, longs = 0, len(raw), 0
    while place < end:
        code = raw[place]
        size = _ARGUMENTS.get(code)
        place += 1
        if size is None:
            raise pickle.UnpicklingError(f'byte {place - 1} is no opcode')
        if code in _TUPLES:  # as keys of dicts they can take for ever
            raise pickle.UnpicklingError('it holds tuples')
        start = place
        if size >= 0:
            place += size
        elif size == pickletools.UP_TO_NEWLINE:
            place = raw.find(b'\n', start) + 1
            if not place:
                raise pickle.UnpicklingError('it ends within a line')
        else:
            width = _LENGTHS[size]
            start += width
            place = start + int.from_bytes(raw[start - width:start], 'little')
        if place > end:
            raise pickle.UnpicklingError(f'it ends within an argument, at byte {end}')
        if code in _ENDS:
            return
        if code in _MEMO:
            number = int(raw[start:place][:12]) if code == _MEMO[0] else int.from_bytes(
                raw[start:place], 'little')
            if not 0 <= number <= end:
                raise pickle.UnpicklingError(f'it numbers a value {number}')
        elif code in _LONGS and place - start >= _LONGS[code]:
            longs += 1
            if longs > _MAX_LONGS:  # as keys of a dict they can be made to collide
                raise pickle.UnpicklingError(f'it holds more than {_MAX_LONGS} long numbers')
    raise pickle.UnpicklingError('it has no end')


def _check_content(content, limit: int) -> None:
    """Refuse other types, depth, and values in values that stand for more than the file can."""
    count = 1
    if type(content) not in _CONTAINERS | _LEAVES:
        raise pickle.UnpicklingError(f'it holds {type(content).__name__}')
    level = [content] if type(content) in _CONTAINERS else []
    for _ in range(_MAX_DEPTH):
        if not level:
            return
        below = []
        for values in level:
            items = values if type(values) is list else [*values, *values.values()]
            count += len(items)
            if count > limit:
                raise pickle.UnpicklingError('its lists hold themselves, or each other many times')
            kinds = {*map(type, items)}
            if other := kinds - _LEAVES - _CONTAINERS:
                raise pickle.UnpicklingError(f'it holds {other.pop().__name__}')
            if kinds & _CONTAINERS:
                below += [item for item in items if type(item) in _CONTAINERS]
        level = below
    raise pickle.UnpicklingError(f'it is nested deeper than {_MAX_DEPTH}')
