"""Files that ship with the package."""
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent / 'zoo'


def packaged(name: str) -> Path:
    """Folder ``name`` of the package's zoo.

    Raises:
        FileNotFoundError: with the names that exist.
    """
    folder = _ROOT / name
    if not folder.is_dir():
        known = sorted(path.name for path in _ROOT.glob('*') if path.is_dir())
        raise FileNotFoundError(f'simpleseg_mm://{name} does not ship with the package; '
                                f'what does: {known}')
    return folder


def locate(folder: str) -> str:
    """``simpleseg_mm://NAME`` -> the packaged folder; anything else as it is."""
    scheme = 'simpleseg_mm://'
    return str(packaged(folder[len(scheme):])) if folder.startswith(scheme) else folder
