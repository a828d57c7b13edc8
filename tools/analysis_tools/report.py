"""One self-contained HTML file about a run: the command ``simpleseg report`` as a tool."""
import sys

from simpleseg_mm.cli import main

if __name__ == '__main__':
    sys.exit(main(['report', *sys.argv[1:]]))
