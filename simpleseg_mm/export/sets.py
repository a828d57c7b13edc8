"""Formats of annotation tools and training sets: COCO, LabelMe, CVAT, YOLO."""
import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from xml.etree import ElementTree

import numpy as np
from PIL import Image

from ..files import one_line
from ..polygon import mask_to_box, mask_to_rle
from ..structures import Segmentation
from .prepare import by_picture, picture_names
from .rings import centre_rings, number, opened, plain


class CocoFile:
    """A COCO instances file, picture by picture. A category is a label.

    ``segmentation`` is the list of the parts' polygons, holes cut open; an RLE when ``exact``,
    which some readers do not take (Label Studio's converter). An annotation has a ``score``; of a
    vote, ``agreement`` and, unless ``exact``, ``uncertainty``: for each polygon as many numbers as
    it has points, pixels within which 90 % of the answers pass them.
    """

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact
        self._images: list[dict] = []
        self._annotations: list[dict] = []
        self._categories = LabelNumbers()

    def add(self, name: str, number: int, size: tuple[int, int], objects: Iterable[Segmentation]
            ) -> None:
        """Add a picture: its ``file_name``, its number from 0, (h, w) and what is on it."""
        self._images.append(dict(id=number + 1, file_name=name, height=size[0], width=size[1]))
        for result in objects:
            category = self._categories.of(result.label) + 1
            if not result.mask.any():
                continue
            x1, y1, x2, y2 = mask_to_box(result.mask).tolist()
            outlines = [] if self.exact else opened(result)
            segmentation = [[value for point in plain(ring) for value in point]
                            for ring, _ in outlines] or mask_to_rle(result.mask)
            widths = [widths for _, widths in outlines] if result.spread and outlines else None
            self._annotations.append(dict(
                id=len(self._annotations) + 1, image_id=number + 1, iscrowd=0,
                category_id=category, segmentation=segmentation, bbox=[x1, y1, x2 - x1, y2 - y1],
                area=int(np.count_nonzero(result.mask))) | _evidence(result, widths))

    def content(self) -> dict:
        """The file, for JSON."""
        return dict(images=self._images, annotations=self._annotations,
                    categories=[dict(id=number + 1, name=name)
                                for number, name in enumerate(self._categories)])


def to_coco(results: Sequence[Segmentation], exact: bool = False) -> dict:
    """A :class:`CocoFile`; ``file_name`` is the path below the folder that holds all pictures."""
    file = CocoFile(exact)
    _add_all(file, results)
    return file.content()


def to_labelme(name: str, size: tuple[int, int], objects: Iterable[Segmentation],
               exact: bool = False) -> dict:
    """A LabelMe file of one picture; objects are told apart by ``group_id``. ``name`` is its
    ``imagePath``, which leads from the folder of the file to the picture.

    Polygons, one a part, holes cut open (LabelMe's have none); when ``exact``, shapes of type
    'mask' (a PNG in the box of the object), since its polygons are filled with their outline.

    A shape has the keys of :class:`CocoFile` beside its own; LabelMe keeps what it does not know.
    """
    shapes: list[dict] = []
    for group, result in enumerate(objects):
        if not result.mask.any():
            continue
        if exact:
            x1, y1, x2, y2 = mask_to_box(result.mask).astype(int).tolist()
            found = [dict(shape_type='mask', points=[[x1, y1], [x2 - 1, y2 - 1]],
                          mask=_png(result.mask[y1:y2, x1:x2]), **_evidence(result))]
        else:
            found = [dict(shape_type='polygon', points=plain(ring), **_evidence(result, widths))
                     for ring, widths in opened(result)]
        shapes += [dict(shape, label=result.label, group_id=group, description='', flags={})
                   for shape in found]
    return dict(version='5.4.1', flags={}, shapes=shapes, imagePath=name, imageData=None,
                imageHeight=size[0], imageWidth=size[1])


class YoloLabels:
    """YOLO's segmentation labels, picture by picture.

    A row is one ring, ``class x1 y1 x2 y2 ...`` in shares of the picture: holes are cut open, and
    an object of several parts is several rows.

    Attributes:
        classes: names of the classes, in the order of their numbers.
    """

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact
        self.classes = LabelNumbers()

    def of(self, objects: Iterable[Segmentation]) -> str:
        """The text of a picture's file."""
        rows = []
        for result in objects:
            number = self.classes.of(result.label)
            if not result.mask.any():
                continue
            # Ultralytics cuts coordinates to whole pixels, supervision rounds them: alike so
            rings = [ring + 0.25 for ring in centre_rings(result.mask)] if self.exact else [
                ring for ring, _ in opened(result)]
            shares = [ring / np.array(result.size[::-1], np.float64) for ring in rings]
            rows += [' '.join([str(number), *(f'{value:.8g}' for value in share.ravel())])
                     for share in shares]
        return '\n'.join([*rows, '']) if rows else ''


class CvatFile:
    """CVAT's XML 1.1 for images, picture by picture: polygons grouped by ``group_id``; masks (run
    lengths in the box of the object) where there are holes, which CVAT's polygons cannot say, and
    when ``exact``. The confidence is an attribute of a label; where a task's own labels lack it,
    CVAT leaves it out."""

    def __init__(self, exact: bool = False) -> None:
        self.exact = exact
        self._images: list[ElementTree.Element] = []
        self._labels = LabelNumbers()
        self._objects = 0

    def add(self, name: str, number: int, size: tuple[int, int], objects: Iterable[Segmentation]
            ) -> None:
        """Add a picture: its name, as CVAT finds it, its number from 0, (h, w) and what is on it.
        """
        image = ElementTree.Element('image', id=str(number), name=one_line(name),
                                    width=str(size[1]), height=str(size[0]))
        self._images.append(image)
        for result in objects:
            self._labels.of(result.label)
            self._objects += 1
            if result.mask.any():
                self._draw(image, result, str(self._objects))

    def text(self) -> str:
        """The file."""
        root = ElementTree.Element('annotations')
        ElementTree.SubElement(root, 'version').text = '1.1'
        task = ElementTree.SubElement(ElementTree.SubElement(root, 'meta'), 'task')
        for key, value in (('name', 'simpleseg'), ('size', len(self._images)),
                           ('mode', 'annotation'), ('overlap', 0)):
            ElementTree.SubElement(task, key).text = str(value)
        labels = ElementTree.SubElement(task, 'labels')
        for name in self._labels:
            label = ElementTree.SubElement(labels, 'label')
            ElementTree.SubElement(label, 'name').text = name
            attribute = ElementTree.SubElement(ElementTree.SubElement(label, 'attributes'),
                                               'attribute')
            for key, value in (('name', 'confidence'), ('mutable', 'False'),
                               ('input_type', 'text'), ('default_value', ''), ('values', '')):
                ElementTree.SubElement(attribute, key).text = value
        root.extend(self._images)
        ElementTree.indent(root)
        return ElementTree.tostring(root, encoding='unicode', xml_declaration=True) + '\n'

    def _draw(self, image: ElementTree.Element, result: Segmentation, group: str) -> None:
        common = dict(label=result.label, source='auto', occluded='0', z_order='0',
                      group_id=group)
        if self.exact or not result.parts or any(part.holes for part in result.parts):
            shapes = [('mask', _runs(result.mask))]
        else:
            shapes = [('polygon', dict(points=';'.join(
                f'{number(x, 2)},{number(y, 2)}' for x, y in part.outer)))
                for part in result.parts]
        for kind, place in shapes:
            shape = ElementTree.SubElement(image, kind, common | place)
            if result.confidence is not None:
                attribute = ElementTree.SubElement(shape, 'attribute', name='confidence')
                attribute.text = f'{result.confidence:.4f}'


def to_cvat(results: Sequence[Segmentation], exact: bool = False) -> str:
    """A :class:`CvatFile`; CVAT finds pictures by their name below the folder that holds them
    all."""
    file = CvatFile(exact)
    _add_all(file, results)
    return file.text()


def _add_all(file: CocoFile | CvatFile, results: Sequence[Segmentation]) -> None:
    results = list(results)
    names = picture_names(result.image for result in results)
    for index, group in by_picture(results).items():
        file.add(names[group[0].image], index, group[0].size, group)


def _evidence(result: Segmentation, uncertainty: list | None = None) -> dict:
    """How sure an object is, as far as it is known."""
    found = dict(score=result.confidence, agreement=result.agreement, uncertainty=uncertainty)
    return {name: value for name, value in found.items() if value is not None}


def _runs(mask: np.ndarray) -> dict:
    """Row by row in the box, runs of background and mask in turn, background first."""
    x1, y1, x2, y2 = mask_to_box(mask).astype(int).tolist()
    flat = mask[y1:y2, x1:x2].ravel()
    changes = np.flatnonzero(np.diff(flat, prepend=False))  # 0 where the first pixel is mask
    lengths = np.diff(changes, prepend=0, append=flat.size).tolist()
    return dict(rle=', '.join(map(str, lengths)), left=str(x1), top=str(y1), width=str(x2 - x1),
                height=str(y2 - y1))


class LabelNumbers:
    """Numbers of labels, in the order of their first use, from 0; iterates over the labels."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, label: str) -> int:
        return self._numbers.setdefault(label, len(self._numbers))

    def __iter__(self) -> Iterator[str]:
        return iter(self._numbers)


def _png(mask: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray(mask.astype(np.uint8) * 255).save(out, 'PNG')
    return base64.b64encode(out.getvalue()).decode('ascii')
