"""Text files of any editor: with a byte order mark, in UTF-8, UTF-16 or Windows-1252.

And texts and values of a file in lines and messages.
"""
import codecs
import json
import os
import re
import reprlib
import unicodedata
from pathlib import Path

_MARKS = ((codecs.BOM_UTF8, 'utf-8-sig'), (codecs.BOM_UTF32_LE, 'utf-32'),
          (codecs.BOM_UTF32_BE, 'utf-32'), (codecs.BOM_UTF16_LE, 'utf-16'),
          (codecs.BOM_UTF16_BE, 'utf-16'))


def decode_text(raw: bytes) -> str:
    """Text of a file's bytes: by its byte order mark, else UTF-8, else Windows-1252.

    Windows-1252 leaves five bytes open; they are read as Latin-1 does. So this never fails on
    what is text, and :func:`read_text` refuses what is not.
    """
    for mark, encoding in _MARKS:
        if raw.startswith(mark):
            return raw.decode(encoding)
    try:
        return raw.decode('utf-8')
    except UnicodeDecodeError:
        try:
            return raw.decode('cp1252')
        except UnicodeDecodeError:
            return raw.decode('latin-1')


def is_guessed(raw: bytes) -> bool:
    """Whether :func:`decode_text` has nothing that shows the encoding."""
    if raw.startswith(tuple(mark for mark, _ in _MARKS)):
        return False
    try:
        raw.decode('utf-8')
    except UnicodeDecodeError:
        return True
    return False


def read_text(path: str | os.PathLike) -> str:
    """Text of a file, line ends as ``\\n``.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no text, by its null characters or a broken byte order mark.
    """
    return _text_of(Path(path).read_bytes(), path)


def _text_of(raw: bytes, path: str | os.PathLike) -> str:
    try:
        text = decode_text(raw)
    except UnicodeDecodeError as error:
        raise ValueError(f'{path} is no text that can be read: {error}. '
                         'Save it as UTF-8') from None
    if '\0' in text:
        raise ValueError(f'{path} is no text: it holds null characters. Save it as UTF-8')
    return text.replace('\r\n', '\n').replace('\r', '\n')


def read_lines(path: str | os.PathLike) -> list[str]:
    """Lines of a list, such as names of pictures: blank ones and the blanks around are left out,
    blanks within a name stay. Raises as :func:`read_text`."""
    return [line.strip() for line in read_text(path).split('\n') if line.strip()]


def load_json(path: str | os.PathLike):
    """Content of a JSON file of any encoding.

    Raises:
        OSError: it cannot be read.
        ValueError: it is broken; names the file and the place.
    """
    return json_of(Path(path).read_bytes(), path)


def json_of(raw: bytes, path: str | os.PathLike):
    """Content of the bytes of a JSON file, as :func:`load_json` reads them."""
    text = _text_of(raw, path)
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError(f'{path} is not readable JSON: it is nested too deep') from None
    except ValueError as error:  # also for numbers of thousands of digits
        raise ValueError(f'{path} is not readable JSON: {error}. Take the file again') from None


#: what ends a line for some reader, and what XML cannot hold
_CONTROL = re.compile('[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufffe\uffff]')


def one_line(text: str) -> str:
    """A text for a file of lines, XML or a message: line breaks and control characters become
    blanks."""
    cleaned = _CONTROL.sub(' ', text)
    return text if cleaned == text else ' '.join(cleaned.split())


def is_blank(text: str) -> bool:
    """Whether nothing of a text is seen: blanks, and characters of control and format alone.

    >>> is_blank(' \\u200b\\ufeff'), is_blank('.')
    (True, False)
    """
    return all(unicodedata.category(letter)[0] in 'ZC' for letter in text)


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxlist, self.maxdict, self.maxstring = 3, 6, 4, 40

    def repr_int(self, value: int, level: int) -> str:
        bits = value.bit_length()
        return repr(value) if bits <= 128 else f'a number of {bits} bits'


def shown(value, length: int = 60) -> str:
    """A value as Python writes it, cut to ``length`` characters.

    Unlike ``f'{value!r:.60}'`` it never writes out the whole of a value that is large, or that
    holds itself, only to cut it.

    >>> shown([1, [2, [3, [4]]], 'a' * 100])
    "[1, [2, [3, [...]]], 'aaaaaaaaaaaaaaaaa...aaaaaaaaaaaaaaaa']"
    """
    return _Shown().repr(value)[:length]
