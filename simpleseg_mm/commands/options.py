"""Options that many commands and tools have."""
import argparse


class KeyValues(argparse.Action):
    """MMEngine's ``DictAction``, which is loaded when an option is given: not for ``--help``."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        for one in values:
            key, equals, _ = one.partition('=')
            if not equals or not all(key.split('.')):
                parser.error(f'{option_string} {one}: give KEY=VALUE, such as '
                             'train_cfg.max_iters=20')
        from mmengine.config import DictAction
        DictAction(self.option_strings, self.dest)(parser, namespace, values, option_string)


def add_config_options(parser: argparse.ArgumentParser) -> None:
    """``--cfg-options``, as all tools of OpenMMLab have it."""
    parser.add_argument('--cfg-options', nargs='+', action=KeyValues, metavar='KEY=VALUE',
                        help='override settings: key=value, a.b=value, list="[a,b]"')
