"""Evaluation protocols by name: the conventions in which published tables differ.

All of them count (reference, sentence) pairs and take the ground truth from the annotation by
pycocotools. A protocol is data; the metrics have no branch on its name.
"""
from dataclasses import dataclass
from typing import TypeVar


@dataclass(frozen=True)
class RegionProtocol:
    """How masks are scored."""

    square: int | None
    """Side in pixels of the square that both masks are resized to, nearest; None: as they are."""
    empty_iou: float
    """IoU of two empty masks where there is a target (resizing can lose a small one)."""
    absent_iou: float
    """IoU of an empty mask where the target is absent."""
    unreadable_is_empty: bool
    """Whether text that cannot be read counts as an empty mask for an absent target too. If not,
    only an answer that says 'nothing' is right there. (For a present target both are wrong.)"""
    precision_over_absent: bool
    """Whether absent targets count in P@X."""


@dataclass(frozen=True)
class BoxProtocol:
    """How boxes are scored."""

    truth: str
    """'mask': the box of the true mask; 'annotation': the annotated box."""
    strict: bool
    """Whether the IoU must exceed the threshold (or may equal it)."""


_TEXT4SEG = RegionProtocol(square=None, empty_iou=1.0, absent_iou=1.0, unreadable_is_empty=True,
                           precision_over_absent=True)
_LAVT = RegionProtocol(square=480, empty_iou=0.0, absent_iou=0.0, unreadable_is_empty=True,
                       precision_over_absent=True)

REGION_PROTOCOLS: dict[str, RegionProtocol] = dict(
    text4seg=_TEXT4SEG,   # the default: SimpleSeg's tables stand beside Text4Seg's rows
    lisa=_TEXT4SEG,
    gsva=_TEXT4SEG,
    lavt=_LAVT,
    polyformer=RegionProtocol(square=512, empty_iou=0.0, absent_iou=0.0, unreadable_is_empty=True,
                              precision_over_absent=True),
    # ReLA on gRefCOCO. Its model input is 480; that unreadable text is no empty answer is ours.
    rela=RegionProtocol(square=480, empty_iou=0.0, absent_iou=1.0, unreadable_is_empty=False,
                        precision_over_absent=False),
)

BOX_PROTOCOLS: dict[str, BoxProtocol] = dict(
    text4seg=BoxProtocol(truth='mask', strict=True),
    polyformer=BoxProtocol(truth='annotation', strict=False),
)

P = TypeVar('P')


def get_protocol(name: str, table: dict[str, P]) -> P:
    """The protocol of that name.

    Raises:
        ValueError: There is none; the message lists those there are.
    """
    if name not in table:
        raise ValueError(f'unknown protocol {name!r}; choose one of {sorted(table)}')
    return table[name]
