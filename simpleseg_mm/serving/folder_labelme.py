"""LabelMe's files beside pictures, as objects of the page and back."""
from ..files.labelme import RECTANGLES, outline_of, shape_type_of

OWN = 'simpleseg'  # the key under which a file holds what LabelMe's own keys cannot


def groups_of(shapes: list) -> list[list[int]]:
    """Numbers of the shapes that make up each object.

    Shapes of one label and group are parts of one. Not among them are shapes without an area,
    broken ones, and rectangles beside another outline of their object.
    """
    groups: dict = {}
    for number, shape in enumerate(shapes):
        if not isinstance(shape, dict) or outline_of(shape)[0] is None:
            continue
        group, label = shape.get('group_id'), shape.get('label')
        key = number if group in (None, '') else (str(label).strip(), str(group))
        groups.setdefault(key, []).append(number)
    found = []
    for members in groups.values():
        drawn = [one for one in members if shape_type_of(shapes[one]) not in RECTANGLES]
        found.append(drawn or members)
    return found
