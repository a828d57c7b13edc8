"""Files that ship with the package, by the name under which models know them."""
from ..files.packaged import packaged

__all__ = ['packaged']
