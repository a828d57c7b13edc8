"""Answers as text, one JSON object a line: written by a run, read back for offline scoring."""
import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mmengine.logging import print_log
from mmengine.utils import mkdir_or_exist

from ..answers import looks_of
from ..files import read_text, replacing, shown
from ..registry import METRICS
from .base import QueryMetric, SampleQuery

_FIELDS = dict(
    img_id='img_id', image_id='image_id', ref_id='ref_id', sent_id='sent_id', source='source',
    split='split', text='text', task='task', prompt='prompt', answer='answer',
    pred_text='pred_text', tokens='pred_num_tokens', finished='pred_finished',
    confidence='pred_confidence', seconds='pred_seconds', codec='codec', ori_shape='ori_shape',
    agreement='pred_agreement', answers='pred_answers', greedy_text='pred_greedy_text',
    scores='pred_scores', looks='pred_looks')
"""Field of a row: the sample's key."""


@METRICS.register_module()
class TextDump(QueryMetric):
    """Writes the answers of a run to a .jsonl file and returns no figures.

    A row holds ``img_id, image_id, ref_id, sent_id, source, split, text, task, prompt, answer``
    (the true one), ``pred_text, tokens, finished, confidence, seconds, codec, ori_shape``, and
    of a consensus ``agreement, answers`` (how many), ``greedy_text`` and, of a list, ``scores``;
    of second looks ``looks``; null for what the sample does not state.
    ``tools/analysis_tools/eval_text.py`` scores such a file.

    Args:
        out_file: Path ending in .jsonl; folders are made.
        collect_device, collect_dir: See `mmengine.evaluator.BaseMetric`.
    """

    default_prefix = 'text'
    returns_nothing = True

    def __init__(self, out_file: str, collect_device: str = 'cpu',
                 collect_dir: str | None = None) -> None:
        super().__init__(collect_device=collect_device, collect_dir=collect_dir)
        if not str(out_file).endswith('.jsonl'):
            raise ValueError(f'out_file must end in .jsonl, got {str(out_file)!r}')
        self.out_file = Path(out_file)

    def measure(self, query: SampleQuery) -> dict:
        return {field: query.meta.get(key) for field, key in _FIELDS.items()}

    def summarize(self, results: list[dict]) -> dict:
        mkdir_or_exist(self.out_file.parent)
        with replacing(self.out_file) as partial, open(partial, 'w', encoding='utf-8') as file:
            for row in results:
                file.write(json.dumps(row, ensure_ascii=False, default=_plain) + '\n')
        print_log(f'{len(results)} answers written to {self.out_file}', logger='current')
        return {}


def read_text_rows(path: str | Path) -> list[dict]:
    """The rows of a .jsonl file of answers, blank lines left out.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A line is no JSON object with a string ``pred_text`` and either ``img_id`` or
            ``ref_id`` and ``sent_id``, or a field of it is not of its type; the message names the
            line.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no file of answers at {path}')
    rows = [_read_row(line, f'{path}, line {number}')
            for number, line in enumerate(read_text(path).split('\n'), 1) if line.strip()]
    if not rows:
        raise ValueError(f'{path} has no rows')
    return rows


def match_rows(rows: Iterable[dict], samples: Iterable[dict]) -> dict[int, dict]:
    """Joins rows to the queries of a dataset.

    A row is matched by ``img_id`` where it has one, else by (``ref_id``, ``sent_id``), and by
    ``source`` too where the row names it.

    Args:
        rows: As `read_text_rows` returns them.
        samples: Of each query, in the dataset's order, a dict with ``img_id``, ``ref_id``,
            ``sent_id`` and ``source``.

    Returns:
        index of the query -> its row, for every query.

    Raises:
        ValueError: Rows of unknown queries, two rows of one query, queries without a row, or rows
            that fit several queries; the message counts each fault and gives an example.
    """
    index: dict[tuple, list[int]] = {}
    total = 0
    for total, sample in enumerate(samples, 1):
        for key in _keys(sample):
            index.setdefault(key, []).append(total - 1)
    found: dict[int, dict] = {}
    unknown, doubled, ambiguous = [], [], []
    faults = {'of unknown queries': unknown, 'of a query that has one already': doubled,
              "that fit several queries (add 'source')": ambiguous}
    for row in rows:
        key = _keys(row)[0]
        fits = index.get(key, [])
        if len(fits) != 1:
            (ambiguous if fits else unknown).append(key)
        elif fits[0] in found:
            doubled.append(key)
        else:
            found[fits[0]] = row
    messages = [f'{len(keys)} rows {fault} (first: {dict(keys[0])})'
                for fault, keys in faults.items() if keys]
    missing = total - len(found)
    if missing:
        messages.append(f'{missing} of {total} queries have no row')
    if messages:
        raise ValueError('the rows do not fit the dataset: ' + '; '.join(messages) +
                         '. Check that the split and its order of ids are those of the run')
    return found


def _keys(row: dict) -> list[tuple]:
    """The keys that a row or a query goes by, the surest first."""
    keys = []
    if row.get('img_id') is not None:
        keys.append((('img_id', row['img_id']), ))
    pair = (('ref_id', row.get('ref_id')), ('sent_id', row.get('sent_id')))
    if row.get('source') is not None:
        keys.append(pair + (('source', row['source']), ))
    return keys + [pair]


def _read_row(line: str, where: str) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{where}: not JSON ({error})') from None
    if not isinstance(row, dict) or not isinstance(row.get('pred_text'), str):
        raise ValueError(f"{where}: expected a JSON object with the string 'pred_text'")
    if row.get('img_id') is None and (row.get('ref_id') is None or row.get('sent_id') is None):
        raise ValueError(f"{where}: expected 'img_id', or 'ref_id' and 'sent_id'")
    for name, fits, what in _STATED:
        if row.get(name) is not None and not fits(row[name]):
            raise ValueError(f'{where}: {name!r} is {shown(row[name])}; give {what}, or leave it '
                             'out')
    return row


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _are_looks(value) -> bool:
    try:
        return isinstance(value, list) and looks_of(value) is not None
    except ValueError:
        return False


#: what a row may state beside its text
_STATED = (('tokens', _is_number, 'a number'), ('seconds', _is_number, 'a number'),
           ('confidence', _is_number, 'a number'), ('agreement', _is_number, 'a number'),
           ('scores', lambda value: isinstance(value, list) and all(map(_is_number, value)),
            'a list of numbers'),
           ('looks', _are_looks, 'a list of looks as a run writes them'),
           ('finished', lambda value: isinstance(value, bool), 'true or false'),
           ('codec', lambda value: isinstance(value, str), "a name such as 'int1000/default'"))


def _plain(value: Any) -> Any:
    if hasattr(value, 'tolist'):
        return value.tolist()
    raise TypeError(f'{type(value).__name__} {value!r} does not go into a row of answers')
