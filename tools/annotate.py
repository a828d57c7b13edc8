"""Annotate images: python tools/annotate.py CONFIG --work-dir DIR. The last line is JSON counts.

Run again with the same arguments, it goes on where it was stopped.
"""
import argparse
import json
import sys

from simpleseg_mm import stopping

if __name__ in ('__main__', '__mp_main__'):  # also while the libraries below are loaded
    stopping.end_in_one_line('finished chunks are kept; the same command goes on.')

from simpleseg_mm.commands.options import KeyValues


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description='Annotate images')
    parser.add_argument('config', help='config file, such as one of configs/annotation')
    parser.add_argument('--work-dir', help='shards, ledger, report (default: work_dirs/CONFIG); '
                        'with several machines a folder that all can reach')
    parser.add_argument('--engine', choices=['local', 'ray'], default='local')
    parser.add_argument('--workers', type=int, default=0,
                        help='processes of the local engine, each with all models; 0: this one')
    parser.add_argument('--ray-address', help="of a Ray cluster, or 'auto'; unless given, Ray is "
                        'started on this machine')
    parser.add_argument('--no-coco', action='store_true', help='do not write coco.json')
    parser.add_argument('--no-images', action='store_true', help='do not write the images beside '
                        'coco.json a second time; other tools need them')
    parser.add_argument('--pictures', type=int, default=12, help='pictures in the report')
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues,
                        help='override settings: stages.detect.min_score=0.4, order="[a,b]"')
    return parser.parse_args()


def build_engine(args: argparse.Namespace):
    if args.engine == 'local':
        from simpleseg_mm.annotation.stages import LocalEngine
        return LocalEngine(args.workers)
    from simpleseg_mm.annotation.ray_engine import RayEngine
    return RayEngine(args.ray_address)


def main() -> int:
    args = parse_args()
    from mmengine.registry import init_default_scope  # heavy: not for --help or in every worker

    from simpleseg_mm.annotation.stages import annotate
    from simpleseg_mm.annotation.export import write_coco, write_annotation_report
    from simpleseg_mm.config import read_config
    from simpleseg_mm.config_keys import READ_BY_ANNOTATE
    from simpleseg_mm.engine.launch import default_work_dir
    from simpleseg_mm.files import one_line
    from simpleseg_mm.polygon import PolygonCodec
    try:
        cfg = read_config(args.config, args.cfg_options, READ_BY_ANNOTATE)
        init_default_scope('simpleseg_mm')
        work_dir = args.work_dir or default_work_dir(args.config)
        totals = annotate(cfg, work_dir, build_engine(args))
        result = totals.as_dict()
        if not args.no_coco:
            result['coco'] = write_coco(work_dir, f'{work_dir}/coco.json',
                                        images=not args.no_images)
        codec = next((s['codec'] for s in cfg.stages.values() if 'codec' in s), {})
        report = write_annotation_report(work_dir, totals, PolygonCodec(**codec), args.pictures)
    except (OSError, ValueError, ImportError) as error:
        print(f'ERROR: {one_line(str(error))}', file=sys.stderr)
        return 2
    for line in warnings_of(result):
        print(f'WARNING: {line}', file=sys.stderr)
    print(f'report: {report}')
    print(json.dumps({**result, 'input_faults': len(result['input_faults'])}))
    return 0


def warnings_of(result: dict) -> list[str]:
    """What deserves a look: reasons that took more than half, and broken input."""
    lines = [f'{kind}: {number} of {count["entered"]} dropped, {reason}'
             for kind, count in result['counts'].items()
             for reason, number in count['dropped'].items() if 2 * number > count['entered']]
    return lines + [f'{reason}: {detail}' for reason, detail in result['input_faults']]


if __name__ == '__main__':
    sys.exit(main())
