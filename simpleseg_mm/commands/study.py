"""Run a study, configs or changes of one by seeds, and write the table that comes of it.

    simpleseg study STUDY.yaml                     # the runs that have no figures yet; the table
    simpleseg study STUDY.yaml --dry-run           # what it would do
    simpleseg study STUDY.yaml --collect           # the table of what is there
    simpleseg study STUDY.yaml --launcher slurm --sbatch=--partition=gpu --sbatch=--time=4:00:00

docs/studies.md describes the file.
"""
import argparse
from pathlib import Path

from .options import add_config_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('study', help='.yaml file, or the name of one of configs/studies')
    parser.add_argument('--out', type=Path, help='folder of the runs and the table '
                        '(default: work_dirs/studies/NAME)')
    parser.add_argument('--jobs', type=int, help='runs at a time (default: as many as the GPUs '
                        'hold, 1 without)')
    parser.add_argument('--gpus', nargs='+', help='GPUs that runs may use (default: all visible)')
    parser.add_argument('--launcher', choices=['local', 'slurm', 'ray'], default='local',
                        help='who makes the runs (%(default)s)')
    parser.add_argument('--sbatch', action='append', default=[], metavar='OPTION',
                        help='option of sbatch, such as --sbatch=--partition=gpu')
    parser.add_argument('--collect', action='store_true', help='make no run: write the table')
    parser.add_argument('--dry-run', action='store_true', help='say what would be done')
    parser.add_argument('--redo', action='store_true', help='runs that were made with other '
                        'settings than the study has now: set them aside, and make them again')
    parser.add_argument('--run', nargs=2, metavar=('ARM', 'SEED'), help='make this run alone, as '
                        'Slurm does')
    add_config_options(parser)


def main(args: argparse.Namespace) -> int:
    from ..study.drive import drive_study  # loads mmengine
    return drive_study(args)
