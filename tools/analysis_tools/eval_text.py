"""Score answers that were written as text, this model's or any other's, without running a model.

A row of the .jsonl file needs ``pred_text`` and either ``img_id`` or ``ref_id`` and ``sent_id``
(and ``source`` where sets are joined). ``codec`` names another grammar than the config's;
``tokens``, ``finished`` and ``seconds`` are used where they are given. The metric ``TextDump``
writes such files, and their figures are then those of the run itself. The last line is one JSON
object.
"""
import argparse
import json
from collections.abc import Sequence

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line()

from simpleseg_mm.commands.options import add_config_options


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file; its test_dataloader.dataset is scored')
    parser.add_argument('results', help='.jsonl file of answers, one row a query')
    parser.add_argument('--metrics', nargs='+', metavar='TYPE',
                        help="metrics instead of the config's test_evaluator, such as RESMetric "
                        'mmdet.RefSegMetric')
    add_config_options(parser)
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_args(argv)
    from simpleseg_mm.config import read_config
    from simpleseg_mm.evaluation.offline import score  # loads torch: not for --help
    try:
        config = read_config(args.config, args.cfg_options, ours=False, said={
            'test_evaluator': '--metrics'} if args.metrics else None)
        figures = score(config, args.results, args.metrics)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f'eval_text: {error}') from None
    print(json.dumps(figures), flush=True)


if __name__ == '__main__':
    main()
