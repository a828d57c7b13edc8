"""Names of objects in answers: strings of JSON, in one line and of bounded length."""
import json
import re

#: Characters of a name at most, as it is written. Our choice.
MAX_NAME = 100
# Two escapes are written, of a quotation mark and of a backslash; a name begins with no blank.
_PLAIN = r'"\\\x00-\x1f\ud800-\udfff'
NAME_PATTERN = rf'"(?:[^ {_PLAIN}]|\\["\\])(?:[^{_PLAIN}]|\\["\\]){{0,{MAX_NAME - 1}}}"'
_NAME = re.compile(NAME_PATTERN)
_CHAR = re.compile(rf'[^{_PLAIN}]')


def quoted_name(name: str) -> str:
    """A name as answers hold it: ``"red cup"``.

    Raises:
        ValueError: it is blank or no text, begins with a blank, has more than ``MAX_NAME``
            characters, line breaks or other control characters, or halves of characters.
    """
    text = json.dumps(name, ensure_ascii=False) if isinstance(name, str) else ''
    if _NAME.fullmatch(text) is None or not name.strip():
        raise ValueError(f'an object has the name {name!r:.60}: give a text in one line that '
                         f'begins with no blank, of at most {MAX_NAME} characters')
    return text


def writable_name(name: str) -> str:
    """A name that a model wrote, as an answer can hold it: blanks for control characters, 'object'
    where nothing is left."""
    name = ''.join(char if is_name_char(char) or char in '"\\' else ' ' for char in name).strip()
    while len(json.dumps(name, ensure_ascii=False)) - 2 > MAX_NAME:  # escapes are two characters
        name = name[:-1]
    return name or 'object'


def read_name(quoted: str) -> str:
    """The name that a string means, of JSON or Python; as much of it as ``MAX_NAME`` allows. What
    is no character is replaced. Never raises."""
    if quoted[:1] in ('"', "'"):
        inner = quoted[1:-1]
        try:
            quoted = json.loads(quoted if quoted[0] == '"' else f'"{inner}"', strict=False)
        except ValueError:
            quoted = inner
    name = quoted[:MAX_NAME]
    return name.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace')


def name_key(name: str | None) -> str:
    """What names have in common that mean the same: blanks and capitals aside.

    >>> name_key(' Red  Cup') == name_key('red cup')
    True
    """
    return ' '.join((name or '').split()).casefold()


def is_name_char(char: str) -> bool:
    """Whether a character stands in a name as it is, without an escape."""
    return _CHAR.fullmatch(char) is not None
