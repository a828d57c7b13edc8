"""The command ``simpleseg``: what a user does with a trained model.

A subcommand is a module of ``simpleseg_mm.commands`` with ``add_arguments(parser)`` and
``main(args)``; its docstring's first line is its help.
"""
import argparse
import importlib
import sys
from collections.abc import Sequence

from . import __version__, stopping

#: name of the subcommand -> its module
COMMANDS = {'segment': 'simpleseg_mm.commands.segment',
            'report': 'simpleseg_mm.commands.report',
            'serve': 'simpleseg_mm.commands.serve',
            'grammar': 'simpleseg_mm.commands.grammar'}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a subcommand; its exit status. Where one is named, the others are not loaded."""
    if argv is None:  # this process is the command
        stopping.end_in_one_line('what was written is kept; the same command starts again.')
        argv = sys.argv[1:]
    parser = argparse.ArgumentParser(
        prog='simpleseg', description='Segmentation by a multimodal LLM that writes polygons.')
    parser.add_argument('--version', action='version', version=__version__)
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    modules = {}
    for name in argv[:1] if argv and argv[0] in COMMANDS else COMMANDS:
        modules[name] = importlib.import_module(COMMANDS[name])
        text = modules[name].__doc__
        modules[name].add_arguments(commands.add_parser(
            name, help=text.splitlines()[0], description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter))
    args = parser.parse_args(argv)
    try:
        return modules[args.command].main(args) or 0
    except (FileNotFoundError, ValueError) as error:
        print(f'simpleseg: {error}', file=sys.stderr, flush=True)
        return 2


if __name__ == '__main__':
    sys.exit(main())
