"""Questions about pictures with short answers, from a file that anyone can write."""
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from mmcv.transforms import BaseTransform

from simpleseg_mm.files import is_blank, read_text, shown
from simpleseg_mm.files.coco import read_number
from simpleseg_mm.polygon import PolygonCodec, Task
from simpleseg_mm.registry import DATASETS, TRANSFORMS

from .base import BadSample, QueryDataset, RawRecord

REGION = '{region}'
OVERALL = 'overall'  # what the metric calls the mean over all kinds


@DATASETS.register_module()
class QuestionAnsweringDataset(QueryDataset):
    """Questions about pictures: one sample a question.

    ``questions`` is a JSON-lines file, one object a line::

        {"image": "images/7.jpg", "question": "What colour is the bus?",
         "answers": ["red", "dark red"], "kind": "colour"}
        {"image": "images/7.jpg", "question": "What stands at {region}?", "region": [31, 40],
         "answers": ["a bus"], "kind": "naming"}
        {"image": "images/7.jpg", "question": "Output the bounding box of the bus.",
         "box": [20, 12, 96, 80], "kind": "grounding"}

    ``image`` is a path below ``data_root``, found as :class:`simpleseg_mm.files.PictureFinder`
    does where it is not as written; ``kind`` any name by which figures are given apart.
    Either ``answers`` lists what is accepted, the first being the one that training teaches; or
    ``box`` (x1, y1, x2, y2) is the answer. ``region``, a box or a point (x, y), stands where the
    question says ``{region}``. Coordinates are pixels, and become text in the grammar of
    ``query.codec``. Other keys are passed over.

    A sample with ``answers`` has no codec, so that its answer is text and nothing else; to metrics
    of regions it is a picture without a target. One with a ``box`` is a task 'text2box'.

    Args:
        data_root: Folder of the images.
        questions: The file, below ``data_root`` unless absolute.
        query: Arguments of :class:`FormatQuestion`.
        **kwargs: See :class:`QueryDataset`.

    Raises:
        FileNotFoundError, ValueError: One line that names the file and line: what is missing or
            wrong, and what to do.
    """

    def __init__(self, data_root: str, questions: str, query: dict | None = None,
                 **kwargs) -> None:
        self.questions = Path(data_root) / questions
        super().__init__(data_root, query=dict(type='FormatQuestion') | dict(query or {}),
                         **kwargs)

    def read_records(self) -> Iterator[RawRecord]:
        """The file's lines."""
        rows, faults = read_questions(self.questions)
        if len(faults) > 1 and self.bad_samples == 'error':
            faults[0] += f' ({len(faults)} lines are wrong)'
        for fault in faults:
            self.refuse(BadSample(fault, 'bad question'))
        for number, (where, row) in enumerate(rows):
            yield RawRecord(where, dict(row, number=number))

    def parse_data_info(self, raw: RawRecord) -> dict:
        """The sample of a question: what :meth:`QueryDataset.make_record` gives, and ``question,
        kind, answers`` (None for a box) and ``region`` (None without one)."""
        row = raw.content
        name, number = row['image'], row['number']
        try:
            path = self.find_picture(name)
        except BadSample as fault:
            if fault.message is None:
                raise
            raise BadSample(f"{fault}; 'image' is a path below data_root", fault.reason,
                            error=FileNotFoundError) from None
        height, width = self.size_of_picture(path)
        instances = []
        if row.get('box') is not None:
            x1, y1, x2, y2 = row['box']
            instances = [dict(bbox=[x1, y1, x2, y2], bbox_label=0, ignore_flag=0,
                              mask=[[x1, y1, x2, y1, x2, y2, x1, y2]])]
        for key in ('box', 'region'):
            _check_inside(row.get(key), width, height, repr(key))
        return dict(
            img_path=str(path), image_id=name, ref_id=number, sent_id=0, ann_id=number,
            text=row['question'], height=height, width=width, split='all',
            source=self.questions.stem, instances=instances, question=row['question'],
            kind=row['kind'], answers=row.get('answers'), region=row.get('region'))

    def counts(self) -> dict[str, int]:
        """Number of questions of each kind, and of those answered by text as 'overall'."""
        infos = [self.get_data_info(i) for i in range(len(self))]
        kinds = [info['kind'] for info in infos]
        return {kind: kinds.count(kind) for kind in sorted(set(kinds))} | {
            OVERALL: sum(info['answers'] is not None for info in infos)}


@TRANSFORMS.register_module()
class FormatQuestion(BaseTransform):
    """Write a question of :class:`QuestionAnsweringDataset` and its answer.

    Adds ``prompt``, ``answer``, ``turns`` and ``task``, and for a box its ``codec``.

    Args:
        codec: Arguments of :class:`simpleseg_mm.polygon.PolygonCodec`: the grammar of regions
            and boxes.
        prompt: What the user says, holding ``{question}``, where the answer is text. A model that
            likes to talk is asked for a short phrase here.
        turns: Largest number of questions about one picture in a conversation (training only).

    Raises:
        ValueError: ``prompt`` does not hold ``{question}`` once, or ``turns`` is less than 1.
    """

    def __init__(self, codec: Mapping | None = None, prompt: str = '{question}',
                 turns: int = 1) -> None:
        if prompt.count('{question}') != 1:
            raise ValueError(f"prompt must hold '{{question}}' once, got {prompt!r}")
        if turns < 1:
            raise ValueError(f'turns must be at least 1, got {turns}')
        self.codec = PolygonCodec(**dict(codec or {}))
        self.prompt = prompt
        self.turns = turns

    def transform(self, results: dict) -> dict:
        turns = [self._write(results)]
        if self.turns > 1 and not results['test_mode']:
            siblings = results['siblings']
            order = results['rng'].permutation(len(siblings))[:self.turns - 1]
            turns += [self._write(siblings[int(k)]) for k in order]
        results.update(prompt=turns[0][0], answer=turns[0][1], turns=turns)
        if results['answers'] is None:
            results.update(task=Task('text', 'box').name, codec=self.codec.spec)
            del results['answers']
        else:
            results['task'] = Task('question', 'text').name
        return results

    def _write(self, info: dict) -> tuple[str, str]:
        size = info['height'], info['width']
        grammar = self.codec.grammar
        question = info['question']
        if info['region'] is not None:
            region = np.array(info['region'], float)
            text = (grammar.format_box if len(region) == 4 else grammar.format_point)(region, size)
            question = question.replace(REGION, text)
        if info['answers'] is None:
            box = np.array(info['instances'][0]['bbox'], float)
            return question, grammar.format_box(box, size)
        return self.prompt.replace('{question}', question), info['answers'][0]


def read_questions(path: str | Path) -> tuple[list[tuple[str, dict]], list[str]]:
    """The rows of a file of questions, each with its place ('FILE, line N'), blank lines left
    out; and what is wrong with the lines that are not as :class:`QuestionAnsweringDataset` says.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It has no questions.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'no file of questions at {path}; its form is in '
                                'docs/retention.md, and tools/dataset_converters/'
                                'refshapes_questions.py writes one about RefShapes')
    rows, faults = [], []
    for number, line in enumerate(read_text(path).split('\n'), 1):
        if line.strip():
            where = f'{path}, line {number}'
            try:
                rows.append((where, parse_question(line, where)))
            except ValueError as error:
                faults.append(str(error))
    if not rows and not faults:
        raise ValueError(f'{path} has no questions')
    return rows, faults


def parse_question(line: str, where: str) -> dict:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{where}: not JSON ({error})') from None
    if not isinstance(row, dict):
        raise ValueError(f'{where}: a question is a JSON object, got {line.strip()[:60]!r}')
    for name in ('image', 'question', 'kind'):
        if not isinstance(row.get(name), str) or is_blank(row[name]):
            raise ValueError(f'{where}: {name!r} must be a text that is not empty, got '
                             f'{shown(row.get(name))}')
    if row['kind'] == OVERALL or '/' in row['kind']:
        raise ValueError(f"{where}: the kind {shown(row['kind'])} is not allowed: {OVERALL!r} is "
                         "the mean over all kinds, and '/' parts names; choose another name")
    answers, box, region = row.get('answers'), row.get('box'), row.get('region')
    if (answers is None) == (box is None):
        raise ValueError(f"{where}: give 'answers', a list of accepted texts, or 'box', and not "
                         'both')
    if answers is not None and not (isinstance(answers, list) and answers and all(
            isinstance(answer, str) and not is_blank(answer) for answer in answers)):
        raise ValueError(f"{where}: 'answers' must be a list of texts that are not empty, got "
                         f'{shown(answers)}')
    if box is not None and not _is_box(box):
        raise ValueError(f"{where}: 'box' must be [x1, y1, x2, y2] in pixels with x1 < x2 and "
                         f'y1 < y2, got {shown(box)}')
    if region is not None and not (_is_box(region) or _are_numbers(region, 2)):
        raise ValueError(f"{where}: 'region' must be a box [x1, y1, x2, y2] or a point [x, y] in "
                         f'pixels, got {shown(region)}')
    if (region is not None) != (REGION in row['question']):
        raise ValueError(f"{where}: 'region' and {REGION!r} in the question belong together; "
                         'one of them is missing')
    return row


def _are_numbers(values, count: int) -> bool:
    return (isinstance(values, list) and len(values) == count
            and all(not isinstance(v, str) and read_number(v) is not None for v in values))


def _is_box(values) -> bool:
    return _are_numbers(values, 4) and values[0] < values[2] and values[1] < values[3]


def _check_inside(values: Sequence[float] | None, width: int, height: int, what: str) -> None:
    if values is not None and not all(0 <= v <= side for v, side in zip(
            values, (width, height) * 2)):
        raise ValueError(f'{what} {values} leaves the image of {width} x {height} pixels (w x h); '
                         'coordinates are pixels of the image file')
