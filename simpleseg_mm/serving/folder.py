"""The server's own folder: its pictures, and the annotations beside them."""
import hashlib
import os
import platform
import threading
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ..files import load_json, spelled
from ..files.labelme import is_labelme
from .folder_files import PictureFolder, Stamp, file_of, places_of
from .folder_labelme import OWN, groups_of

FORMS = ('labelme', 'coco')
_MAX_BYTES = 100_000_000  # of a file of annotations. Our choice
_SECONDS = 5.0  # that a list takes for reading annotations; the next one goes on. Our choice


@dataclass(frozen=True)
class Summary:
    """What a file of annotations holds.

    Attributes:
        objects: how many; None where there are no annotations.
        done: the annotator's mark.
        fault: why they cannot be read.
        owner: the picture that it says it is of.
    """
    objects: int | None = None
    done: bool = False
    fault: str = ''
    owner: str | None = None


class Folder:
    """A folder whose pictures are annotated.

    Args:
        root: the folder.
        form: 'labelme', a file beside each picture, or 'coco', one for all.

    Raises:
        FileNotFoundError: there is no such folder.
    """

    def __init__(self, root: str | os.PathLike, form: str = 'labelme') -> None:
        self.root, self.form = Path(root).resolve(strict=True), form
        self.name = spelled(self.root.name) or spelled(self.root)
        self.id = hashlib.sha256(f'{platform.node()}\0'.encode() + os.fsencode(self.root)
                                 ).hexdigest()[:16]
        self._summaries: dict[str, tuple[Stamp, Summary]] = {}
        self._listing = threading.Lock()

    def about(self) -> dict:
        """What /api/info says of it."""
        return dict(name=self.name, id=self.id, format=self.form)

    def list(self) -> dict:
        """All pictures, with what is known of their annotations; see docs/serving.md."""
        rows, late = [], 0
        with self._listing:
            places, notes = places_of(self.root)
            until = time.monotonic() + _SECONDS
            for place in places:
                read = partial(self._summary, place, until)
                for name in place.pictures:
                    file = file_of(place, name, lambda file: getattr(read(file), 'owner', None))
                    summary = Summary(fault='no name is free for its file') if file is None else \
                        read(file)
                    late += summary is None
                    summary = summary or Summary()
                    rows.append(dict(path=spelled(place.below(name)), objects=summary.objects,
                                     done=summary.done, fault=summary.fault))
            there = {place.below(file) for place in places for file in place.stamps}
            for gone in self._summaries.keys() - there:
                del self._summaries[gone]
        if late:
            notes.append(f'the annotations of {late} pictures are not read yet: ask again')
        return dict(self.about(), pictures=rows, notes=notes)

    def _summary(self, place: PictureFolder, until: float, file: str) -> Summary | None:
        """Of a file; None where it is not known yet and the time is over."""
        stamp, path = place.stamps.get(file), place.below(file)
        if stamp is None:
            return Summary()
        known = self._summaries.get(path)
        if known is None or known[0] != stamp:
            if time.monotonic() > until:
                return None
            known = self._summaries[path] = stamp, self._summed(self.root / path)
        return known[1]

    def _summed(self, file: Path) -> Summary:
        try:
            if file.stat().st_size > _MAX_BYTES:
                raise ValueError(f'it has more than {_MAX_BYTES:,} bytes')
            content = load_json(file)
        except (OSError, ValueError) as error:
            return Summary(fault=f'{spelled(file.name)} cannot be read: {error}')
        if not is_labelme(content):
            return Summary(fault=f"{spelled(file.name)} is no file of LabelMe's")
        said, own = content.get('imagePath'), content.get(OWN)
        return Summary(len(groups_of(content['shapes'])),
                       isinstance(own, dict) and own.get('done') is True, '',
                       said.replace('\\', '/').rpartition('/')[2] or None
                       if isinstance(said, str) else None)
