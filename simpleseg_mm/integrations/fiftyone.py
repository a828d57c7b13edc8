"""SimpleSeg as a model of FiftyOne (Voxel51).

    model = SimpleSegModel(classes=['cup', 'plate'], weights='work_dirs/nano_mine')
    dataset.apply_model(model, label_field='simpleseg', batch_size=8)
    dataset.apply_model(model, label_field='outlined', box_prompt_field='ground_truth')

docs/annotation_tools.md has more.
"""
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace

import fiftyone as fo
import fiftyone.core.models as fom
import numpy as np

from ..apis import SimpleSegInferencer
from ..asking import PictureQuery, Unanswered
from ..export.rings import keyhole
from ..files import is_blank, load_image
from ..structures import Prompt, Segmentation
from ..taught import ASKED

LOG = logging.getLogger(__name__)
#: keywords of ``apply_model`` that name a field of prompts, and the kind of these
_FIELDS = dict(text_prompt_field='text', point_prompt_field='point', box_prompt_field='box')


class SimpleSegModel(fom.SamplesMixin, fom.Model):
    """Outlines of what classes mean, or of what fields of a sample ask for.

    ``apply_model`` takes three more keywords, each the name of a field. What the fields say is
    asked instead of the classes:

    - ``text_prompt_field``: an expression, a list of them, a Classification or Classifications.
      One object is outlined for each.
    - ``box_prompt_field``: Detections or a Detection. The object in each box is outlined.
    - ``point_prompt_field``: Keypoints or a Keypoint. The first point of each is asked.

    Objects have the label of the class, box or key point. Without classes and fields, all objects
    of a picture are asked for, where the model was taught that.

    Args:
        classes: names to ask for, or a dict of the words to ask by, by name. Every object of a
            class is outlined where the model was taught lists, else one.
        model, weights, device, consensus: as :class:`~simpleseg_mm.apis.SimpleSegInferencer` takes
            them.
        polylines: give Polylines, the vertices that the model wrote with holes cut open, instead
            of Detections with masks.
        inferencer: one that is there already, instead of these.

    Attributes:
        errors: why samples have no labels, or prompts no answer, a message each; of the last
            ``apply_model``.

    Raises:
        ValueError: a class is no name, or the model cannot be asked for classes.
    """
    media_type = 'image'
    ragged_batches = False  # nothing is made a tensor here
    transforms = None
    preprocess = True

    def __init__(self, classes: Sequence[str] | Mapping[str, str] | None = None,
                 model: str | None = None, weights: str | None = None, device: str | None = None,
                 consensus: int | None = None, polylines: bool = False, inferencer=None) -> None:
        super().__init__()
        self._prompt_fields: dict[str, str] = {}
        words = _words_of(classes)
        if inferencer is None:
            inferencer = SimpleSegInferencer(model, weights, device, show_progress=False,
                                             consensus=consensus)
        self.inferencer, self.polylines, self.errors = inferencer, polylines, []
        self.config = SimpleNamespace()  # FiftyOne looks there for what a model filters by itself
        every = 'all' in inferencer.taught.prompts
        if words and not every:
            self._check('text')
        self._asked = [(Prompt(text=text, all=every), name) for name, text in words.items()]

    def __enter__(self):
        self._usual()
        self.errors = []
        return self

    @property
    def needs_fields(self) -> dict:
        """The field of each kind of prompts. Raises ValueError where it is set to what is none."""
        return self._prompt_fields

    @needs_fields.setter
    def needs_fields(self, fields: dict) -> None:
        unknown = sorted(set(fields) - set(_FIELDS))
        if unknown:
            raise ValueError(f'apply_model got {", ".join(unknown)}: this model takes '
                             f'{", ".join(_FIELDS)}')
        given = {key: field for key, field in fields.items() if field is not None}
        for key in given:
            self._check(_FIELDS[key])
        self._prompt_fields = given

    def predict(self, arg: np.ndarray, sample=None) -> fo.Detections | fo.Polylines | None:
        """Labels of a picture (H, W, 3) uint8 RGB; None where its fields ask for nothing.

        Raises:
            ValueError: it cannot be asked, or is not answered.
        """
        (label, error), = self._predicted([arg], [sample])
        if error is not None:
            self.errors.append(str(error))
            raise error
        return label

    def predict_all(self, args, samples=None) -> list[fo.Detections | fo.Polylines | None]:
        """Labels of pictures that are answered together. What fails fails alone: it has None, and
        is said in ``errors`` and in the log."""
        found = []
        for label, error in self._predicted(args,
                                            [None] * len(args) if samples is None else samples):
            if error is not None:
                self._say(str(error))
            found.append(label)
        return found

    # --- asking --------------------------------------------------------------------------------
    def _predicted(self, pictures, samples) -> list[tuple]:
        """Of each picture its labels, or None, and what kept it from having some, or None."""
        self._usual()
        asked: list[list | None] = []
        errors: list[ValueError | None] = [None] * len(pictures)
        queries, labels = [], []
        for number, (picture, sample) in enumerate(zip(pictures, samples)):
            name = f'picture {number}' if sample is None else str(
                getattr(sample, 'filepath', None) or sample.id)
            try:
                picture = load_image(np.asarray(picture), name)
                asked.append(self._prompts(sample, picture.shape[:2], name))
            except ValueError as error:
                errors[number] = _about(name, error)
                asked.append(None)
            for prompt, label in asked[number] or ():
                queries.append(PictureQuery(number, name, picture, prompt))
                labels.append(label)
        rows: list[list[fo.Label]] = [[] for _ in pictures]
        answers = self.inferencer.answers(
            iter(queries), max(len(pictures), self.inferencer.batch_size)) if queries else ()
        count, last = 0, None
        for (query, _, result), label in zip(answers, labels):
            count += 1
            if isinstance(result, Unanswered):
                errors[query.index] = last = _about(query.name, result)
            else:
                rows[query.index] += self._labels(result, label)
        for query in queries[count:]:  # not asked any more after an answer that ends all
            errors[query.index] = errors[query.index] or last
        return [(None if prompts is None or error is not None else self._together(found), error)
                for prompts, found, error in zip(asked, rows, errors)]

    def _usual(self) -> list[tuple[Prompt, str | None]]:
        """What is asked where no field says. Raises ValueError: there is nothing to ask."""
        if self._prompt_fields or self._asked:
            return self._asked
        if 'everything' not in self.inferencer.taught.prompts:
            raise ValueError("nothing is asked for: give SimpleSegModel(classes=['cup', ...]), or "
                             f'apply_model the name of a field, {" or ".join(_FIELDS)}')
        return [(Prompt(everything=True), None)]

    def _prompts(self, sample, size: tuple[int, int], name: str
                 ) -> list[tuple[Prompt, str | None]] | None:
        """Prompts and labels about a picture of ``size`` (h, w); None where no field of its
        sample has a value. Raises ValueError: a field cannot be read."""
        if not self._prompt_fields:
            return self._usual()
        if sample is None:
            raise ValueError('prompts are in fields of a sample '
                             f'({", ".join(self._prompt_fields)}), and none is given')
        found: list[tuple[Prompt, str | None]] | None = None
        for key, field in self._prompt_fields.items():
            value = sample.get_field(field.removeprefix('frames.'))
            if value is None:
                continue
            found, passed = found or [], []
            for given, label in _READERS[_FIELDS[key]](value, size, field, passed):
                try:
                    found.append((Prompt(**given).within(size), label))
                except ValueError as error:
                    passed.append(str(error))
            if passed:
                self._say(f'{name}: {len(passed)} of {field} are passed over: {passed[0]}')
        return found

    def _check(self, kind: str) -> None:
        if not self.inferencer.taught.knows(kind):
            raise ValueError(f'this model was not taught {ASKED[kind]}: ask it otherwise '
                             f'({", ".join(self.inferencer.taught.prompts)})')

    def _say(self, message: str) -> None:
        self.errors.append(message)
        LOG.warning('%s', message)

    # --- labels --------------------------------------------------------------------------------
    def _labels(self, result: Segmentation, label: str | None) -> Iterator[fo.Label]:
        """A Detection or a Polyline an object."""
        height, width = result.size
        for one in result.objects:
            if not one.mask.any():
                continue
            facts = dict(label=label or one.label, confidence=one.confidence)
            if one.agreement is not None:
                facts['agreement'] = one.agreement
            if self.polylines:
                yield fo.Polyline(points=[
                    (np.asarray(keyhole(part.outer, part.holes)) / (width, height)).tolist()
                    for part in one.parts], closed=True, filled=True, **facts)
            else:
                x1, y1, x2, y2 = one.box.astype(int).tolist()
                yield fo.Detection(
                    bounding_box=[x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height],
                    mask=one.mask[y1:y2, x1:x2].copy(), **facts)

    def _together(self, labels: list[fo.Label]) -> fo.Detections | fo.Polylines:
        return (fo.Polylines(polylines=labels) if self.polylines else
                fo.Detections(detections=labels))


def _words_of(classes) -> dict[str, str]:
    """Words to ask by, by the name of the class. Raises ValueError."""
    if isinstance(classes, str):
        raise ValueError(f'classes is the text {classes!r:.60}: give a list, such as ["cup"]')
    pairs = list(classes.items() if isinstance(classes, Mapping) else
                 ((name, name) for name in classes or ()))
    for name, text in pairs:
        if not isinstance(name, str) or not isinstance(text, str) or is_blank(text):
            raise ValueError(f'a class is a name or has words to ask by; got {name!r:.60}: '
                             f'{text!r:.60}')
    return dict(pairs)


def _about(name: str, error: ValueError) -> ValueError:
    """An error in one line that says which picture it is about."""
    text = ' '.join(str(error).split())
    return ValueError(text if text.startswith(name) else f'{name}: {text}')


# --- fields of prompts, as keywords of a Prompt and a label -----------------------------------
def _texts(value, size: tuple[int, int], field: str, passed: list[str]
           ) -> Iterator[tuple[dict, str | None]]:
    if isinstance(value, fo.Classifications):
        value = value.classifications
    for one in value if isinstance(value, (list, tuple)) else [value]:
        text = one.label if isinstance(one, fo.Classification) else one
        if text is not None and not isinstance(text, str):
            raise ValueError(f'the field {field} holds a {type(one).__name__}; expressions are '
                             'texts, a Classification or Classifications')
        if text is not None and not is_blank(text):
            yield dict(text=text), text


def _boxes(value, size: tuple[int, int], field: str, passed: list[str]
           ) -> Iterator[tuple[dict, str | None]]:
    value = value.detections if isinstance(value, fo.Detections) else [value]
    for one in value:
        if not isinstance(one, fo.Detection):
            raise ValueError(f'the field {field} holds a {type(one).__name__}; boxes are '
                             'Detections or a Detection')
        box = np.asarray(one.bounding_box if one.bounding_box is not None else (), float)
        if box.shape == (4, ):
            box = np.concatenate([box[:2], box[:2] + box[2:]]) * (*size[::-1], *size[::-1])
        yield dict(box=_rounded(box)), one.label


def _points(value, size: tuple[int, int], field: str, passed: list[str]
            ) -> Iterator[tuple[dict, str | None]]:
    value = value.keypoints if isinstance(value, fo.Keypoints) else [value]
    for one in value:
        if not isinstance(one, fo.Keypoint):
            raise ValueError(f'the field {field} holds a {type(one).__name__}; points are '
                             'Keypoints or a Keypoint')
        points = [point for point in one.points or () if all(map(math.isfinite, point))]
        passed += ['the model takes one point, the first'] * (len(points) - 1)
        yield dict(point=_rounded(np.multiply(points[0], size[::-1])) if points else ()), one.label


def _rounded(pixels: np.ndarray) -> tuple[float, ...]:
    """Without what shares of a picture leave, such as 30.000000000000004."""
    return tuple(pixels.round(6).tolist())


_READERS = dict(text=_texts, box=_boxes, point=_points)
