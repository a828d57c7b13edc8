"""Files that ship with the package."""
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent / 'zoo'
_EXAMPLE = _ROOT.parent / 'serving/static/example.jpg'


def packaged(name: str) -> Path:
    """Folder ``name`` of the package's zoo, or its picture ``example.jpg``.

    Raises:
        FileNotFoundError: with the names that exist.
    """
    if name == _EXAMPLE.name:
        return _EXAMPLE
    folder = _ROOT / name
    if not folder.is_dir():
        known = sorted(path.name for path in _ROOT.glob('*') if path.is_dir())
        raise FileNotFoundError(f'simpleseg_mm://{name} does not ship with the package; '
                                f'what does: {known} and {_EXAMPLE.name}')
    return folder


def locate(name: str) -> str:
    """``simpleseg_mm://NAME`` -> the packaged folder or picture; anything else as it is."""
    scheme = 'simpleseg_mm://'
    return str(packaged(name[len(scheme):])) if name.startswith(scheme) else name
