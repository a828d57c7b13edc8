"""Print the grammar of an answer in the notation of another engine.

    simpleseg grammar int1000 mask                      # a regular expression
    simpleseg grammar decimal3 box --as gbnf > box.gbnf
    simpleseg grammar int1000 mask --as ebnf

What the notation cannot say is told on the error output. docs/engines.md shows the requests.
"""
import argparse
import sys

from ..choices import GRAMMAR_ANSWERS, GRAMMAR_NOTATIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('grammar', help="of the codec: 'int1000', 'decimal3', 'fixed3', or "
                        'another number of steps or decimals')
    parser.add_argument('wanted', help=f'what the answer is: {", ".join(GRAMMAR_ANSWERS)}')
    parser.add_argument('--as', dest='form', default='regex', metavar='FORM',
                        help=f'{", ".join(GRAMMAR_NOTATIONS)} (%(default)s)')


def main(args: argparse.Namespace) -> int:
    from ..polygon import WANTED, export_grammar, exported_differences
    kind = WANTED.get(args.wanted)
    if kind is None:
        raise ValueError(f'there is no grammar of {args.wanted!r}; choose one of '
                         f'{", ".join(GRAMMAR_ANSWERS)}')
    print(export_grammar(args.grammar, kind, args.form))
    for words in exported_differences(args.grammar, kind, args.form).values():
        print(f'it cannot forbid {words}', file=sys.stderr)
    return 0
