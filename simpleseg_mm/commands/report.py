"""Write one self-contained HTML file about a run, and its figures as a Markdown table.

    python tools/test.py CONFIG CHECKPOINT --out answers.jsonl
    simpleseg report CONFIG answers.jsonl --runs work_dirs/NAME --out report.html
"""
import argparse

from mmengine.config import DictAction


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('config', help='config of the test')
    parser.add_argument('answers', help='.jsonl file of answers, as tools/test.py --out writes it')
    parser.add_argument('--runs', nargs='*', default=[],
                        help='work directories of the training, for its curves')
    parser.add_argument('--out', default='report.html', help='.html file (report.html)')
    parser.add_argument('--examples', type=int, default=6,
                        help='pictures of each kind of failure (6)')
    parser.add_argument('--title', default='', help='of the page')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='override settings: key=value, a.b=value, list="[a,b]"')


def main(args: argparse.Namespace) -> int:
    from ..config import read_config  # these load torch: not for --help
    from ..visualization.report import write_report
    config = read_config(args.config, args.cfg_options, ours=False)
    write_report(config, args.answers, args.out, args.runs, args.examples, args.title)
    print(f'{args.out} and {args.out.removesuffix(".html")}.md written')
    return 0
