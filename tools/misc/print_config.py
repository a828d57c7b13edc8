"""Print a config with its bases merged: python tools/misc/print_config.py CONFIG"""
import argparse

from mmengine.config import Config, DictAction


def main() -> None:
    parser = argparse.ArgumentParser(description='Print a whole config')
    parser.add_argument('config', help='config file')
    parser.add_argument('--save-path', help='also write it to this .py, .json or .yml file')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction,
                        help='override settings: key=value, a.b=value, list="[a,b]"')
    args = parser.parse_args()
    cfg = Config.fromfile(args.config, import_custom_modules=False)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    print(cfg.pretty_text)
    if args.save_path is not None:
        cfg.dump(args.save_path)


if __name__ == '__main__':
    main()
