"""The grammar that a checkpoint was taught."""
import logging

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import print_log

from simpleseg_mm.polygon import PolygonCodec
from simpleseg_mm.registry import HOOKS


@HOOKS.register_module()
class GrammarHook(Hook):
    """Write into a checkpoint which grammars it was taught, and warn where a run that loads it
    teaches or reads another one: int1000 and int100 look alike, and would move every outline.

    Weights without such a note, as of a Hugging Face folder, are told by their answers
    (``health/other_grammar``).
    """

    priority = 'VERY_LOW'

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        checkpoint['meta']['grammars'] = sorted(_grammars(runner.cfg, 'train_dataloader'))

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        taught = set(checkpoint.get('meta', {}).get('grammars', ()))
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            others = _grammars(runner.cfg, key) - taught
            if taught and others:
                print_log(
                    f'The checkpoint was taught the grammar {", ".join(sorted(taught))}; '
                    f'{key}.dataset.query.codec.grammar is {", ".join(sorted(others))}. Unless '
                    'it is to be taught anew, set it to what the checkpoint writes.', 'current',
                    logging.WARNING)


def _grammars(cfg: Config, key: str) -> set[str]:
    """Names of the grammars of a dataloader's dataset, or of those that it joins."""
    dataset = (cfg.get(key) or {}).get('dataset', {})
    queries = [part.get('query') or {} for part in dataset.get('datasets', [dataset])]
    return {PolygonCodec(**query['codec']).grammar.name for query in queries if query.get('codec')}
