"""What stands beside exported weights and says how they are used (``simpleseg.json``): settings,
never code.

Every key and every kind of value is known beforehand, and nothing is built here.
"""
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from .files import load_json, shown
from .polygon import PolygonCodec
from .structures import Prompt

#: what tools/model_converters/to_huggingface.py leaves beside the weights
NOTE = 'simpleseg.json'
#: a value -> whether it is allowed
Allowed = Callable[[Any], bool]


def whole_number(low: int, high: int = 1 << 31) -> Allowed:
    return lambda value: type(value) is int and low <= value <= high


def is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def is_flag(value: Any) -> bool:
    return type(value) is bool


def is_text(value: Any) -> bool:
    return type(value) is str


def one_of(*values) -> Allowed:
    return lambda value: type(value) in (str, bool) and value in values


def or_none(allowed: Allowed) -> Allowed:
    return lambda value: value is None or allowed(value)


def are_numbers(value: Any) -> bool:
    """Lists of numbers, at any depth."""
    return (isinstance(value, (list, tuple)) and all(map(are_numbers, value))) or is_number(value)


def is_plain(value: Any) -> bool:
    """Containers, texts and numbers, without a key that names a type or code."""
    if isinstance(value, Mapping):
        return all(is_text(key) and not key.startswith('_') and key not in ('type', 'auto_map')
                   and is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(is_plain, value))
    return value is None or type(value) in (str, bool, int, float)


def is_plain_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and is_plain(value)


def are_names(value: Any) -> bool:
    return is_text(value) or isinstance(value, (list, tuple)) and all(map(is_text, value))


_DTYPE = one_of('float32', 'bfloat16', 'float16')
_PIXELS = or_none(whole_number(1))
#: keys of an adapter -> what each may be; those of an exported folder
EXPORTED = dict(dtype=_DTYPE, min_pixels=_PIXELS, max_pixels=_PIXELS,
                system_prompt=or_none(is_text), chat_template_kwargs=is_plain_mapping)
GENERATION = dict(
    max_new_tokens=whole_number(1, 1 << 16), min_new_tokens=or_none(whole_number(0, 1 << 16)),
    do_sample=is_flag, draft=is_flag, constrain=is_flag, inherit=is_flag,
    num_beams=whole_number(1, 64), temperature=is_number, top_k=or_none(whole_number(0)),
    top_p=is_number, min_p=or_none(is_number), repetition_penalty=is_number,
    no_repeat_ngram_size=whole_number(0), length_penalty=is_number, early_stopping=is_flag,
    sequence_bias=or_none(are_numbers), bad_words_ids=or_none(are_numbers),
    suppress_tokens=or_none(are_numbers))
_CODEC = dict(preset=is_text, grammar=is_text, tokens=or_none(is_number),
              epsilon=or_none(is_number), ring_order=is_text, seed=whole_number(0))
_QUERY = dict(tasks=or_none(is_plain_mapping), codec=lambda value: fits_settings(value, _CODEC),
              templates=is_text, turns=whole_number(1, 1000))


def check_exported(note: Any, where: str, families: Collection[str] | None = None) -> dict:
    """The note that an exported folder holds: ``mllm``, ``generation``, ``query`` and ``taught``
    of ``apis.loading.note_of``, as they are.

    Args:
        where: its file, for errors.
        families: names of adapters, one of which it must name; None: for those who build none.

    Raises:
        ValueError: one line: it holds anything else.
    """
    check_settings(note, dict(mllm=is_mapping, generation=is_mapping, query=is_mapping,
                              taught=is_taught), where, '',
                   required=('mllm', 'generation', 'query'))
    check_adapter(note['mllm'], EXPORTED, where, 'mllm', families)
    check_settings(note['generation'], GENERATION, where, 'generation')
    check_query(note['query'], where, 'query')
    return note


def read_exported(folder: Path, families: Collection[str] | None = None) -> dict | None:
    """The note in a folder; None where there is none.

    Raises:
        ValueError: as :func:`check_exported`, or it is no JSON.
    """
    path = folder / NOTE
    return check_exported(load_json(path), str(path), families) if path.is_file() else None


def check_adapter(mllm: Any, known: dict[str, Allowed], where: str, place: str,
                  families: Collection[str] | None) -> None:
    """Settings of an adapter of one of ``families``. Raises ValueError."""
    kind = mllm.get('type') if isinstance(mllm, Mapping) else None
    if not (is_text(kind) and (families is None or kind in families)):
        refuse(where, f'{place}.type', kind,
               f'one of {", ".join(sorted(families or ["the adapters of this package"]))}')
    check_settings(mllm, dict(known, type=is_text), where, place)


def check_query(query: Any, where: str, place: str) -> None:
    check_settings(query, dict(_QUERY, type=one_of('FormatQuery')), where, place,
           required=('type', 'codec'))
    try:
        PolygonCodec(**query['codec'])
    except (TypeError, ValueError) as error:
        raise ValueError(f'{where} is refused: {place}.codec: {error}') from None


def is_taught(value: Any) -> bool:
    return (isinstance(value, Mapping) and set(value) <= {'sets', 'prompts', 'outlines'}
            and is_flag(value.get('outlines', True))
            and all(isinstance(names, (list, tuple)) and all(map(is_text, names))
                    for key, names in value.items() if key != 'outlines')
            and set(value.get('prompts', ())) <= {*Prompt.KINDS, 'all', 'everything'})


def is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def is_none(value: Any) -> bool:
    return value is None


def fits_settings(content: Any, known: dict[str, Allowed]) -> bool:
    return isinstance(content, Mapping) and all(
        key in known and known[key](value) for key, value in content.items())


def check_settings(content: Any, known: dict[str, Allowed], where: str, place: str,
           required: tuple[str, ...] = ()) -> None:
    if not isinstance(content, Mapping):
        refuse(where, place or 'it', content, f'settings of {sorted(known)}')
    if missing := sorted(set(required) - set(content)):
        raise ValueError(f'{where} is refused: {place or "it"} lacks {missing}')
    for key, value in content.items():
        if key not in known:
            raise ValueError(f'{where} is refused: {place or "it"} has the key {shown(key)}; '
                             f'known are {", ".join(sorted(known))}')
        if not known[key](value):
            refuse(where, f'{place}.{key}'.lstrip('.'), value, 'what this package writes there')


def refuse(where: str, place: str, value: Any, allowed: str) -> None:
    raise ValueError(f'{where} is refused: {place} is {shown(value)}, and may be {allowed}. Where '
                     'you know what it asks for, name it in a config file of your own and give '
                     'that too')
