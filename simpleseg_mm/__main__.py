"""``python -m simpleseg_mm``: the command ``simpleseg``, for ``torchrun -m`` too."""
import sys

from .cli import main

if __name__ == '__main__':
    sys.exit(main())
