"""``python -m simpleseg_mm``: the command ``simpleseg``, for ``torchrun -m`` too."""
import sys

if sys.version_info < (3, 10):  # which cannot read the rest; a source tree has no installer
    sys.exit('simpleseg: Python %d.%d is too old: the package is for 3.10 to 3.12. Make an '
             'environment of Python 3.11, and install there' % sys.version_info[:2])

if __name__ == '__main__':
    from .cli import main
    sys.exit(main())
