"""Questions about a generated RefShapes set: colour, count, position, naming, grounding.

    python tools/dataset_converters/refshapes_questions.py data/refshapes --split test --limit 200
    python tools/dataset_converters/refshapes_questions.py data/refshapes --split train --each 2 \\
        --kinds colour count position

Writes ``DATA_ROOT/questions_SPLIT.jsonl`` for ``QuestionAnsweringDataset``. The last line is one
JSON object: the number of questions of each kind, and ``guess``, what the most frequent answer of
a kind alone scores in percent.
"""
import argparse
import json
from collections import Counter
from pathlib import Path

from simpleseg_mm.choices import SHAPE_QUESTIONS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data_root', type=Path, help='folder of the set')
    parser.add_argument('--split', default='test')
    parser.add_argument('--kinds', nargs='+', default=SHAPE_QUESTIONS, choices=SHAPE_QUESTIONS)
    parser.add_argument('--each', type=int, default=1, help='questions of a kind about one scene')
    parser.add_argument('--limit', type=int, help='questions of a kind in all (default: no limit)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--out', type=Path, help='another file')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from simpleseg_mm.datasets.shape_questions import write_questions  # these load torch
    from simpleseg_mm.engine.launch import one_line_errors
    from simpleseg_mm.files import replace_text
    out = args.out or args.data_root / f'questions_{args.split}.jsonl'
    with one_line_errors():
        try:
            rows = write_questions(args.data_root, args.split, args.kinds, args.each, args.limit,
                                   args.seed)
        except ValueError as error:
            raise SystemExit(f'refshapes_questions: {error}') from None
    replace_text(out, ''.join(json.dumps(row) + '\n' for row in rows))
    answers: dict[str, Counter] = {}
    for row in rows:
        answers.setdefault(row['kind'], Counter()).update(row.get('answers', ()))
    counts = Counter(row['kind'] for row in rows)
    guess = {kind: round(100 * max(counter.values()) / counts[kind], 1)
             for kind, counter in answers.items() if counter}
    print(json.dumps(dict(out=str(out), questions=dict(counts), guess=guess)))


if __name__ == '__main__':
    main()
