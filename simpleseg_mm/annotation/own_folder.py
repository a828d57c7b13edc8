"""The folder of a new set: what someone has changed in it, or had there before, stays."""
import hashlib
from collections.abc import Iterable
from pathlib import Path

from simpleseg_mm.files import load_json, replace_json

_LIST = 'written.json'  # files that were written here, with digests of their content


class OwnFolder:
    """Knows which files of a folder were written by a run before, and not changed since.

    Args:
        folder: need not be there.
        overwrite: replace changed files too.
    """

    def __init__(self, folder: Path, overwrite: bool = False) -> None:
        self.folder, self.overwrite = folder, overwrite
        try:
            known = load_json(folder / _LIST)
        except (OSError, ValueError):
            known = {}
        self._known = known if isinstance(known, dict) else {}

    def is_ours(self, path: Path) -> bool:
        """Whether a path is free, or an earlier run wrote it: for pictures."""
        return not path.exists() or path.relative_to(self.folder).as_posix() in self._known

    def check(self, paths: Iterable[Path]) -> None:
        """Raise ValueError where a path holds what no run wrote, or what was changed since."""
        changed = [path for path in paths if path.exists() and self._known.get(
            path.relative_to(self.folder).as_posix()) != _digest(path)]
        if changed and not self.overwrite:
            raise ValueError(f'{", ".join(map(str, changed))}: changed since own_data.py wrote '
                             'it, or not written by it. Give another folder, or --overwrite to '
                             'replace it')

    def note(self, paths: Iterable[Path]) -> None:
        """Remember files that this run wrote."""
        self._known.update((path.relative_to(self.folder).as_posix(), _digest(path))
                           for path in paths)
        replace_json(self.folder / _LIST, self._known, indent=1)


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
