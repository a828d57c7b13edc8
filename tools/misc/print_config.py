"""Print a config with its bases merged: python tools/misc/print_config.py CONFIG"""
import argparse
from pathlib import Path

from simpleseg_mm.commands.options import add_config_options


def main() -> None:
    parser = argparse.ArgumentParser(description='Print a whole config')
    parser.add_argument('config', help='config file')
    parser.add_argument('--save-path', help='also write it to this .py, .json or .yml file')
    add_config_options(parser)
    args = parser.parse_args()
    from simpleseg_mm.config import read_config  # these load torch: not for --help
    from simpleseg_mm.config_keys import READ_BY_OTHER_TOOLS
    from simpleseg_mm.engine import launch
    from simpleseg_mm.files import replacing
    with launch.one_line_errors():
        cfg = read_config(args.config, args.cfg_options, READ_BY_OTHER_TOOLS,
                          checked=False)
        print(cfg.pretty_text)
        if args.save_path is not None:
            if not args.save_path.endswith(('.py', '.json', '.yml', '.yaml')):
                raise ValueError(f'--save-path {args.save_path}: give a .py, .json or .yml file')
            with replacing(args.save_path) as partial:
                written = partial.with_name(f'{partial.name}{Path(args.save_path).suffix}')
                cfg.dump(written)
                written.replace(partial)


if __name__ == '__main__':
    main()
