"""Label Studio's configs and regions: what a config asks for, and answers as its regions."""
import re
from dataclasses import dataclass
from xml.etree import ElementTree

import cv2
import numpy as np

from ..export.studio import in_percent, outline_values, studio_regions
from ..polygon import mask_to_parts
from ..structures import Prompt, Segmentation

MAX_LABEL_CONFIG = 200_000  # characters of a labelling config
MAX_ASKED = 100  # expressions or labels of one task
#: controls that an answer fits, the best first, and the type of their regions
CONTROLS = {'PolygonLabels': 'polygonlabels', 'BrushLabels': 'brushlabels',
            'RectangleLabels': 'rectanglelabels'}
#: keys of a task's data that hold expressions to ask for instead of the labels
EXPRESSIONS = ('expression', 'expressions')
_BORDER = 0.01  # percent that a position may lie outside by rounding


@dataclass(frozen=True)
class Label:
    """A label: the words to ask for, and the name that annotations hold for it."""
    text: str
    name: str

    @classmethod
    def of(cls, value, alias) -> 'Label':
        text = str(value or '').strip()
        return cls(text, str(alias or '').strip() or text)


@dataclass(frozen=True)
class Config:
    """What a labelling config says.

    Attributes:
        from_name, to_name: of the control and the picture.
        kind: type of the control's regions, a value of ``CONTROLS``.
        image: the picture's address, with ``$keys`` of the task's data.
        labels: that stand in the config.
        dynamic: ``$key`` of the task's data that holds more labels; '': none.
        turned: whether rectangles may be turned, as ``canRotate="true"`` says.
    """
    from_name: str
    to_name: str
    kind: str
    image: str
    labels: tuple[Label, ...]
    dynamic: str = ''
    turned: bool = False

    def picture_of(self, data: dict) -> str:
        """The address of a task's picture. Raises ValueError."""
        place = _filled(self.image, data)
        if not isinstance(place, str) or not place.strip():
            raise ValueError(f'a task has no picture in data.{self.image[1:]}')
        return place.strip()

    def labels_of(self, data: dict) -> list[Label]:
        """Labels of the config and of the task, each once. Raises ValueError."""
        found = list(self.labels)
        if self.dynamic and (value := _filled(self.dynamic, data)) is not None:
            if not isinstance(value, list):
                raise ValueError(f'the labels are in data.{self.dynamic[1:]}, which is to be a '
                                 f'list such as [{{"value": "cat"}}]; got {value!r:.60}')
            for item in value:
                item = item if isinstance(item, dict) else dict(value=item)
                if not isinstance(item.get('value'), (str, int, float)):
                    raise ValueError(f'a label of data.{self.dynamic[1:]} is {item!r:.60}; give '
                                     '{"value": "cat"} or a text')
                found.append(Label.of(item['value'], item.get('alias')))
        return list(dict.fromkeys(label for label in found if label.text))


def read_label_config(text) -> Config:
    """The control of a labelling config that an answer fits. Raises ValueError."""
    if (not isinstance(text, str) or len(text) > MAX_LABEL_CONFIG
            or '<!' in text.replace('<!--', '')):
        raise ValueError('label_config is a short XML text without a DOCTYPE')
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise ValueError(f'label_config is not XML: {error}') from None
    images = {tag.get('name'): tag.get('value', '') for tag in root.iter('Image')}
    for control, kind in CONTROLS.items():
        for tag in root.iter(control):
            place = images.get(tag.get('toName', ''), '')
            if tag.get('name') and '$' in place:
                labels = (Label.of(label.get('value'), label.get('alias'))
                          for label in tag.iter('Label'))
                dynamic = tag.get('value', '')
                return Config(tag.get('name'), tag.get('toName'), kind, place,
                              tuple(label for label in labels if label.text),
                              dynamic if dynamic.startswith('$') else '',
                              tag.get('canRotate', '').lower() == 'true')
    raise ValueError('label_config needs <Image name="image" value="$image"/> and <PolygonLabels '
                     'name="label" toName="image">, or BrushLabels or RectangleLabels instead: '
                     'key points and other controls hold no outline')


def label_for(given: str | None, labels: list[Label]) -> str:
    """The label's name that a region or an expression gives; the first label's where it gives
    none of them."""
    for label in labels:
        if given in (label.name, label.text):
            return label.name
    return labels[0].name if labels else given or 'object'


def _filled(template: str, data: dict):
    """The value of ``$key`` (``$a.b[0]`` too), or a text with such keys in it."""
    if template.startswith('$') and template[1:] in data:
        return data[template[1:]]
    whole = re.fullmatch(r'\$([\w.\[\]]+)', template)
    if whole:
        return _looked_up(whole[1], data)
    return re.sub(r'\$([\w.\[\]]+)', lambda key: str(_looked_up(key[1], data) or ''), template)


def _looked_up(key: str, data):
    for step in re.findall(r'\w+', key):
        if isinstance(data, dict):
            data = data.get(step)
        elif isinstance(data, list) and step.isdecimal() and int(step[:9]) < len(data):
            data = data[int(step[:9])]
        else:
            return None
    return data


def expressions_of(data: dict) -> list[str]:
    """Expressions that a task's data holds; none: its labels are asked. Raises ValueError."""
    texts = next((data[key] for key in EXPRESSIONS if data.get(key)), [])
    return [Prompt(text=text).text for text in _few(texts)]


def _few(texts) -> list:
    texts = texts if isinstance(texts, list) else [texts]
    if len(texts) > MAX_ASKED:
        raise ValueError(f'{len(texts)} expressions are asked at once; at most {MAX_ASKED}')
    return texts


def read_context(context, size: tuple[int, int]) -> list[tuple[Prompt, str | None]]:
    """Prompts and labels of what the annotator has just drawn or written.

    Args:
        context: ``dict(result=[region, ...])`` with regions of type keypoint, rectangle (with or
            without labels) or textarea; positions are in percent of the upright picture.
        size: (h, w) of the picture.

    Raises:
        ValueError: a region cannot be read, or none is of these types.
    """
    given = context.get('result') if isinstance(context, dict) else None
    if not isinstance(given, list):
        raise ValueError('the context is dict(result=[region, ...])')
    found: list[tuple[Prompt, str | None]] = []
    for region in given:
        value = region.get('value') if isinstance(region, dict) else None
        if not isinstance(value, dict):
            raise ValueError('a region of the context has no value')
        kind = str(region.get('type'))
        labels = value.get(kind) or value.get('labels')
        label = labels[0] if isinstance(labels, list) and labels else None
        label = label if isinstance(label, str) else None
        try:
            if kind.startswith('keypoint'):
                if region.get('is_positive') in (0, False):
                    continue  # the model takes one point on the object
                point = _pixels(value['x'], value['y'], size)
                found.append((Prompt(point=tuple(point)), label))
            elif kind.startswith('rectangle'):
                found.append((Prompt(box=_box(value, size)), label))
            elif kind == 'textarea':
                found += [(Prompt(text=text), None) for text in _few(value['text'])]
        except (KeyError, TypeError, OverflowError) as error:
            raise ValueError(f'a {kind:.30} of the context cannot be read: {error!r:.80}'
                             ) from None
    if not found:
        raise ValueError('the context holds no keypoint, rectangle or text')
    texts = [one for one in found if one[0].kind == 'text']
    return found[-1:] if found[-1][0].kind != 'text' else texts[-MAX_ASKED:]


def _pixels(x, y, size: tuple[int, int]) -> np.ndarray:
    """A position in percent as pixels; on the border where rounding put it outside."""
    percent = np.array([float(x), float(y)])
    inside = percent.clip(0, 100)
    percent = np.where(np.abs(percent - inside) <= _BORDER, inside, percent)
    return percent * size[::-1] / 100


def _box(value: dict, size: tuple[int, int]) -> tuple[float, ...]:
    """x1, y1, x2, y2 around a rectangle, which may be turned about its first corner."""
    x, y, w, h = (float(value[key]) for key in ('x', 'y', 'width', 'height'))
    if w < 0 or h < 0:
        raise ValueError(f'a rectangle of the context has a negative size: {w} x {h} %')
    first, last = (np.array(place) * size[::-1] / 100 for place in ((x, y), (x + w, y + h)))
    if angle := np.deg2rad(float(value.get('rotation') or 0)):
        across, down = last - first
        cos, sin = np.cos(angle), np.sin(angle)
        corners = first + np.array([[0, 0], [across * cos, across * sin],
                                    [-down * sin, down * cos],
                                    [across * cos - down * sin, across * sin + down * cos]])
        first, last = corners.min(axis=0), corners.max(axis=0)
    return tuple(np.concatenate([first, last]))


def regions(result: Segmentation, config: Config, name: str) -> list[dict]:
    """An object as regions of the config's kind: a polygon a part (holes are cut open), or one
    brush mask, or one rectangle; each with the object's score."""
    if config.kind != 'rectanglelabels':
        values = outline_values(result, config.kind)
    elif result.mask.any():
        values = [config.turned and _turned(result) or _upright(result)]
    else:
        values = []
    return studio_regions(result, values, config.kind, config.from_name, config.to_name, name)


def _upright(result: Segmentation) -> dict:
    """The box of an object, in percent."""
    (x1, y1), (x2, y2) = in_percent(np.reshape(result.box, (2, 2)), result.size)
    return dict(x=x1, y=y1, width=round(x2 - x1, 4), height=round(y2 - y1, 4), rotation=0)


def _turned(result: Segmentation) -> dict | None:
    """The smallest rectangle around an object: its first corner and sides in percent, turned about
    that corner by ``rotation`` degrees (clockwise). None where no corner lies in the picture, for
    Label Studio takes no other."""
    edges = np.concatenate([part.outer for part in mask_to_parts(result.mask)]).astype(np.float32)
    centre, sides, angle = cv2.minAreaRect(edges)
    scale = 100 / np.array(result.size[::-1])
    for quarter in sorted(range(-2, 2), key=lambda turns: abs(angle + 90 * turns)):
        turn = np.deg2rad(angle + 90 * quarter)
        width, height = sides if quarter % 2 == 0 else sides[::-1]
        across, down = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
        corner = (centre - across * width / 2 - down * height / 2) * scale
        if (-_BORDER <= corner).all() and (corner <= 100 + _BORDER).all():
            x, y = corner.clip(0, 100).round(4).tolist()
            width, height = np.round([width * scale[0], height * scale[1]], 4).tolist()
            if max(width, height) <= 100:
                return dict(x=x, y=y, width=width, height=height,
                            rotation=round(angle + 90 * quarter, 4) % 360)
    return None
