"""Look at this machine and say what works here and what to do first.

    simpleseg doctor
    simpleseg doctor --json

Exit status: 0 nano works here, 1 something must be mended first.
"""
import argparse
import json
from dataclasses import asdict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--json', action='store_true', help='the report as one JSON object')


def main(args: argparse.Namespace) -> int:
    from ..diagnosis import diagnose, what_first, what_works
    from ..machine import look
    machine = look()
    findings, first = diagnose(machine), what_first(machine)
    works, lacking = what_works(machine)
    if args.json:
        print(json.dumps(dict(findings=[asdict(finding) for finding in findings], works=works,
                              lacking=lacking, first=first), ensure_ascii=False))
    else:
        for finding in findings:
            print(f'{finding.state:4}  {finding.name:12}  {finding.said}')
        print(f'works here: {"; ".join(works) or "nothing yet"}')
        if lacking:
            print(f'not here:   {"; ".join(lacking)}')
        print(f'first:      {first}')
    return int(any(finding.state == 'bad' for finding in findings))
