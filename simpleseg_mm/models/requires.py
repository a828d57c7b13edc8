"""What must be installed; importing this module says in one line what is too old."""
import re
from importlib import metadata

#: as in setup.cfg
OLDEST = (5, 18)


def check(version: str) -> None:
    """ImportError where this version of transformers is too old."""
    numbers = tuple(map(int, re.findall(r'\d+', version)[:2]))
    if numbers < OLDEST:
        oldest = '.'.join(map(str, OLDEST))
        raise ImportError(f'transformers {version} is too old: simpleseg_mm needs {oldest} or '
                          f'newer. pip install "transformers>={oldest},<6"')


check(metadata.version('transformers'))
