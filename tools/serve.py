"""Serve a page and a JSON API; the same as ``simpleseg serve``."""
import sys

from simpleseg_mm.cli import main

if __name__ == '__main__':
    sys.exit(main(['serve', *sys.argv[1:]]))
