"""A second look: the same question again, asked of a crop round the first answer.

An outline is as fine as the steps of its grammar and as what the model sees of the picture: of an
object of 40 pixels in 4,000, ten steps of 'int1000'. In a crop the same steps and the same view
are spent on the object alone. numpy and OpenCV alone; who asks is in ``models`` and ``client``.
"""
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import cv2
import numpy as np

from .answers import answer_of
from .polygon import Answer, CropAnswer, Task, find_kind
from .settings import check_fields, is_within, is_whole_within, settings_of
from .taught import Taught
from .templates import question_about

#: x1, y1, x2, y2 in whole pixels of a picture, right and bottom exclusive
Window = tuple[int, int, int, int]
#: what is said where lists are asked for, and their instances get no look
LISTS_UNSEEN = ('no second look is taken at the instances of a list: nothing says that the model '
                'was taught to outline one object by words. second_look=dict(lists=True) takes it '
                'all the same')
NAMES_UNSEEN = 'no second look is taken at objects that were asked for with their names'


@dataclass(frozen=True)
class SecondLook:
    """When a second look is taken, and when it is believed.

    Attributes:
        zoom: a look is taken where the picture's longer side is at least so many times the crop's.
        margin: of the crop round the answer's box, on each side, in lengths of its longer side;
            two steps of the answer's grammar are added, as its outline is no surer.
        agreement: what is seen in the crop is taken where it agrees so far with the first answer,
            see :func:`outline_agreement`; else the first stays.
        side: pixels to which the longer side of a smaller crop is enlarged.
        lists: whether each instance of a list of masks gets a look of its own, by the question for
            one object: for models that were taught that too ('text2mask').

    Raises:
        ValueError: a number is out of its range.
    """
    zoom: float = 2.0
    margin: float = 0.5
    agreement: float = 0.5
    side: int = 448
    lists: bool = False

    def __post_init__(self) -> None:
        check_fields(self, 'model.second_look', (
            ('zoom', is_within(self.zoom, 1, 1e6) and self.zoom > 1, 'a number above 1'),
            ('margin', is_within(self.margin, 0, 100), '0 to 100 lengths of the answer'),
            ('agreement', is_within(self.agreement, 0, 1) and self.agreement > 0,
             'an agreement above 0 and up to 1'),
            ('side', is_whole_within(self.side, 1, 8192), 'a whole number of pixels, 1 to 8192'),
            ('lists', isinstance(self.lists, bool), 'True or False')))

    @classmethod
    def of(cls, settings: 'dict | SecondLook | None') -> 'SecondLook | None':
        """Settings of a config, ``dict()`` for the defaults; None for no look.

        Raises:
            ValueError: a key is unknown, or a value does not fit.
        """
        return None if settings is None else settings_of(
            cls, settings, 'model.second_look', ', or None for no look')

    def doubts(self, task: Task) -> tuple[str, ...]:
        """What is said where no look is taken at the answers to a task, a sentence each."""
        if task.named:
            return (NAMES_UNSEEN, )
        return (LISTS_UNSEEN, ) if task.many and not self.lists else ()

    def asks(self, sample) -> Iterator['Asked']:
        """The looks that a sample's answer calls for; none where it is no outline, where it is
        empty, where it is large, and where the question cannot be asked of a crop.

        Args:
            sample: a ``DetDataSample`` or its dict, answered.
        """
        answer = answer_of(sample)
        if answer is None or answer.codec is None or answer.kind not in ('rings', 'masks') or (
                answer.many and not self.lists):
            return
        for number, one in enumerate(answer.instances):
            window = self.window(one)
            prompt = None if window is None else _question(sample, answer, window)
            if prompt is not None:
                yield Asked(number, window, prompt)

    def window(self, answer: Answer) -> Window | None:
        """Where to look again; None where that shows no more, or there is no outline.

        The shape of the crop lies between a square and the picture's own: models know these.
        """
        box = answer.spans.box if answer.rings else None
        if box is None:
            return None
        h, w = answer.size
        lengths, most = box[2:] - box[:2], np.array([w, h], float)
        lengths = np.minimum(lengths + 2 * (self.margin * lengths.max() + 2 * step_of(answer)),
                             most)
        least, greatest = min(w / h, 1), max(w / h, 1)
        lengths = np.minimum(np.maximum(lengths, lengths[::-1] * (least, 1 / greatest)), most)
        lengths = np.ceil(lengths - 1e-6)
        corner = np.clip(np.round((box[:2] + box[2:] - lengths) / 2), 0, most - lengths)
        x1, y1, x2, y2 = (int(v) for v in (*corner, *(corner + lengths)))
        return (x1, y1, x2, y2) if max(h, w) >= self.zoom * max(lengths) else None

    def judged(self, answer: Answer, seen: Mapping[int, tuple[Window, Answer]]) -> Answer:
        """An answer with its looks, each accepted or not.

        Args:
            answer: the first.
            seen: by the number of an instance (0 where one object was asked for) the window and
                the answer in it.

        Returns:
            The answer with ``looks``, and with their tokens in ``num_tokens``. Its text and its
            confidence are the first's: they say which object is meant.
        """
        if not seen:
            return answer
        instances, looks = answer.instances, []
        for number, (window, second) in sorted(seen.items()):
            look = CropAnswer(second.text, window, instance=number)
            agreement = 0.0
            whole = second.finished is not False and not is_cut(look, second, answer.size)
            if whole and second.spans.area:
                one = replace(instances[number], looks=(
                    replace(look, instance=0, accepted=True), ))
                agreement = outline_agreement(instances[number], one)
            looks.append(replace(look, agreement=agreement,
                                 accepted=agreement >= self.agreement))
        tokens = [answer.num_tokens, *(second.num_tokens for _, second in seen.values())]
        return replace(answer, looks=tuple(looks),
                       num_tokens=None if None in tokens else sum(tokens))


def look_of(asked: bool | Mapping | None, taught: Taught) -> SecondLook | None:
    """The look of an inferencer.

    Args:
        asked: True or a dict with keys of :class:`SecondLook`; None or False: no look.
        taught: unless told, instances of lists get a look where the model was taught to outline
            one object by words.

    Raises:
        ValueError: as :meth:`SecondLook.of`.
    """
    if asked is None or asked is False:
        return None
    settings = {} if asked is True else asked
    if isinstance(settings, Mapping):
        settings = dict(dict(lists='text' in taught.prompts), **settings)
    return SecondLook.of(settings)


@dataclass(frozen=True)
class Asked:
    """A question about a crop.

    Attributes:
        instance: which instance of the answer it is about, from 0.
        window: x1, y1, x2, y2 in pixels of the picture.
        prompt: as the model reads it.
    """
    instance: int
    window: Window
    prompt: str

    def sample(self, answered) -> dict:
        """The crop's own query, for :func:`read_answer`.

        Args:
            answered: the sample whose answer is looked at again.
        """
        x1, y1, x2, y2 = self.window
        return dict(prompt=self.prompt, task=Task.find(answered.get('task')).single.name,
                    codec=answered.get('codec'), ori_shape=(y2 - y1, x2 - x1))


def cut_out(picture: np.ndarray, window: Window, side: int) -> np.ndarray:
    """The part of a picture ((H, W, 3) uint8) in a window, as large as a model is shown it.

    A crop whose longer side has fewer than ``side`` pixels is enlarged to that: models have a
    least size of pictures too, and below it an enlarged crop shows them more.
    """
    x1, y1, x2, y2 = window
    crop = picture[y1:y2, x1:x2]
    scale = side / max(crop.shape[:2])
    if scale <= 1:
        return np.ascontiguousarray(crop)
    size = [max(round(length * scale), 1) for length in crop.shape[1::-1]]
    return cv2.resize(crop, size, interpolation=cv2.INTER_CUBIC)


def step_of(answer: Answer) -> float:
    """Pixels of the picture in one step of an answer's grammar, along its longer side."""
    return max(answer.size) / answer.codec.grammar.steps


def outline_agreement(first: Answer, second: Answer) -> float:
    """How far two outlines are of one object, 0..1, at the resolution of the first: their IoU,
    where what lies within one step of the first's grammar from the other counts as shared.

    Where a step is less than half a pixel it is the IoU itself. A crude outline of a small object
    has an IoU of some 0.4 with the truth, and so has the right one of its neighbour's half: a
    step of tolerance tells these apart, since it is no more than the first could not say.
    """
    boxes = [one.spans.box for one in (first, second)]
    if None in [box if box is None else 0 for box in boxes]:
        return 0.0
    reach = round(step_of(first))
    h, w = first.size
    x1, y1 = (int(max(v - reach, 0)) for v in np.min(boxes, axis=0)[:2])
    x2, y2 = (int(min(v + reach, most)) for v, most in zip(np.max(boxes, axis=0)[2:], (w, h)))
    masks = [np.ascontiguousarray(one.spans.mask[y1:y2, x1:x2]).view(np.uint8)
             for one in (first, second)]
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    shares = [np.count_nonzero(mask & cv2.dilate(other, kernel)) / np.count_nonzero(mask)
              for mask, other in (masks, masks[::-1])]
    # of two shares a and b of one intersection the IoU is 1 / (1 / a + 1 / b - 1)
    return 0.0 if min(shares) == 0 else 1 / (1 / shares[0] + 1 / shares[1] - 1)


def is_cut(look: CropAnswer, second: Answer, size: tuple[int, int]) -> bool:
    """Whether an outline in a crop ends at a side of it that is none of the picture's: the object
    may go on beyond."""
    box = second.spans.box
    if box is None:
        return False
    h, w = second.size
    inner = np.array(look.window) > 0, np.array(look.window) < np.array([*size[::-1]] * 2)
    touched = box[:2] <= 0, box[2:] >= (w, h)
    return bool((touched[0] & inner[0][:2]).any() or (touched[1] & inner[1][2:]).any())


def _question(sample, answer: Answer, window: Window) -> str | None:
    """What is asked of a crop; None where it cannot be: a point or box that was given lies outside
    it, or is not found in the prompt, or the words are not known."""
    task, prompt = Task.find(sample.get('task')), sample.get('prompt')
    grammar = answer.codec.grammar
    x1, y1, x2, y2 = window
    size = y2 - y1, x2 - x1
    if task is None or not isinstance(prompt, str):
        return None
    if task.given == 'text':
        text = sample.get('text')
        if not task.many:
            return prompt
        return question_about('text', text, size, grammar) if isinstance(text, str) else None
    if task.given not in ('point', 'box'):
        return None
    given = find_kind(prompt, grammar, task.given)
    numbers = given.point if task.given == 'point' else given.box
    if numbers is None:
        return None
    corners = numbers.reshape(-1, 2) * answer.size[::-1] - (x1, y1)
    inside = np.clip(corners, 0, size[::-1])
    if task.given == 'point' and (corners != inside).any() or task.given == 'box' and (
            inside[0] >= inside[1]).any():
        return None
    write: Callable = grammar.format_point if task.given == 'point' else grammar.format_box
    start, end = given.span
    return prompt[:start] + write(inside.ravel(), size) + prompt[end:]
