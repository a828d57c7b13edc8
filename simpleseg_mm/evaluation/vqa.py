"""Questions with short answers: exact match after VQA's normalisation, by kind."""
import re

from ..registry import METRICS
from .base import QueryMetric, SampleQuery, percent, stated

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_NUMBERS = {word: str(number) for number, word in enumerate(
    ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten'))}
_NUMBERS['none'] = '0'
_ARTICLES = frozenset(('a', 'an', 'the'))


@METRICS.register_module()
class QuestionAnsweringMetric(QueryMetric):
    """Share of right answers in percent, by the kind of question and ``overall``.

    An answer is right if it equals one of the accepted ones after :func:`normalise_answer`, both
    normalised. There is no part of a point for answers that few of ten people gave, as in VQA's
    soft score. Samples that state no ``answers`` are passed over: other metrics score them.
    """

    default_prefix = 'vqa'

    def measure(self, query: SampleQuery) -> dict | None:
        if query.meta.get('answers') is None:
            return None
        accepted = {normalise_answer(answer) for answer in query.meta['answers']}
        return dict(kind=query.meta['kind'], right=normalise_answer(query.text) in accepted)

    def summarize(self, results: list[dict | None]) -> dict:
        asked = [result for result in results if result is not None]
        figures = {kind: percent(r['right'] for r in asked if r['kind'] == kind)
                   for kind in sorted({r['kind'] for r in asked})}
        return stated({**figures, 'overall': percent(r['right'] for r in asked)})


def normalise_answer(text: str) -> str:
    """A short answer as VQA's evaluation compares it.

    Lower case; punctuation dropped where it stands beside a space or where the text holds a
    number with a comma, else a space; full stops dropped unless a digit follows; number words to
    ten as digits; articles dropped. VQA puts missing apostrophes back (dont, don't); here all are
    dropped, which makes the same answers equal.
    """
    text = ' '.join(text.split()).replace("'", '').replace('\u2019', '')
    joined = re.search(r'\d,\d', text) is not None
    result = text
    for mark in _PUNCTUATION:
        beside = f'{mark} ' in text or f' {mark}' in text
        result = result.replace(mark, '' if joined or beside else ' ')
    words = re.sub(r'\.(?!\d)', '', result).lower().split()
    return ' '.join(_NUMBERS.get(word, word) for word in words if word not in _ARTICLES)
