"""Write one self-contained HTML file about a run, or corrections, and its figures as Markdown.

    python tools/test.py CONFIG CHECKPOINT --out answers.jsonl
    simpleseg report CONFIG answers.jsonl --runs work_dirs/NAME --out report.html
    simpleseg report CORRECTIONS --out report.html    # the page's `corrections`: file or folder
"""
import argparse
import os

from .options import add_config_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config of the test; or, without answers, corrections: '
                        'annotations.json or its folder')
    parser.add_argument('answers', nargs='?',
                        help='.jsonl file of answers, as tools/test.py --out writes it')
    parser.add_argument('--runs', nargs='*', default=[],
                        help='work directories of the training, for its curves')
    parser.add_argument('--out', default='report.html', help='.html file (report.html)')
    parser.add_argument('--examples', type=int, default=6,
                        help='pictures of each kind of failure, or of the worst outlines (6)')
    parser.add_argument('--title', default='', help='of the page')
    add_config_options(parser)


def main(args: argparse.Namespace) -> int:
    if args.answers is None:
        if args.config.endswith('.py') or _is_config(args.config):
            raise ValueError(f'a report of a run needs answers: simpleseg report {args.config} '
                             'answers.jsonl')
        if args.runs or args.cfg_options:
            raise ValueError('--runs and --cfg-options go with a config and answers')
        from ..visualization.corrections import write_correction_report  # these load torch
        write_correction_report(args.config, args.out, args.examples, args.title)
    else:
        from ..config import read_config
        from ..visualization.report import write_report
        config = read_config(args.config, args.cfg_options, ours=False)
        write_report(config, args.answers, args.out, args.runs, args.examples, args.title)
    print(f'{args.out} and {args.out.removesuffix(".html")}.md written')
    return 0


def _is_config(name: str) -> bool:
    """Whether it is no file or folder, but a name of one of this package's configs."""
    from ..config import find_config
    try:
        return not os.path.exists(name) and bool(find_config(name))
    except (FileNotFoundError, ValueError):
        return False
