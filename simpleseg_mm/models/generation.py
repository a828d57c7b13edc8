"""Which settings of transformers' ``GenerationConfig`` our own loop follows."""
import copy
from collections.abc import Callable
from typing import Any

from transformers import GenerationConfig
from transformers.generation.logits_process import (NoBadWordsLogitsProcessor,
                                                    NoRepeatNGramLogitsProcessor,
                                                    RepetitionPenaltyLogitsProcessor,
                                                    SequenceBiasLogitsProcessor,
                                                    SuppressTokensLogitsProcessor)

#: keys of ``GenerationConfig`` that change nothing about greedy answers, but for ``do_sample``
NEUTRAL = {
    'max_new_tokens', 'max_length', 'do_sample', 'temperature', 'top_k', 'top_p', 'min_p',
    'typical_p', 'bos_token_id', 'eos_token_id', 'pad_token_id', 'transformers_version',
    'use_cache', '_from_model_config', 'output_attentions', 'output_hidden_states',
    'return_dict_in_generate', 'output_scores', 'cache_implementation'
}
# Values that switch a key off, where that is not None.
OFF = {'num_beams': 1, 'num_return_sequences': 1, 'repetition_penalty': 1.0,
        'no_repeat_ngram_size': 0}
# In the order in which transformers applies them.
_PROCESSORS = {
    'sequence_bias': SequenceBiasLogitsProcessor,
    'repetition_penalty': RepetitionPenaltyLogitsProcessor,
    'no_repeat_ngram_size': NoRepeatNGramLogitsProcessor,
    'bad_words_ids': NoBadWordsLogitsProcessor,
    'suppress_tokens': SuppressTokensLogitsProcessor,
}

# Of these, those that ask for nothing beside it, so that a folder that sets them asks for nothing.
_ASK_NOTHING = NEUTRAL - {'max_new_tokens', 'do_sample'}
# What counts only where tokens are drawn.
_SAMPLING = {'temperature', 'top_k', 'top_p', 'min_p', 'top_h', 'typical_p', 'epsilon_cutoff',
             'eta_cutoff'}


def pinned(config: GenerationConfig) -> tuple[GenerationConfig, dict[str, Any]]:
    """The one way in which answers are chosen, whatever a folder of weights asks for: the
    likeliest token, without penalties, bans or forced tokens. Its end tokens stay.

    Outlines repeat digits by nature, and reinforcement learning improves the network's own
    distribution: a penalty would make of it another than the one that is validated.

    Args:
        config: from the folder's ``generation_config.json``.

    Returns:
        that config, and the keys of ``GenerationConfig`` by which the folder asks for another.
    """
    default = GenerationConfig().to_dict()
    given = config.to_diff_dict()
    draws = given.get('do_sample')
    asked = {key: value for key, value in given.items()
             if key in default and value not in (None, default[key], OFF.get(key))
             and (key in _SAMPLING and draws or key not in _ASK_NOTHING | _SAMPLING)
             and not (key == 'do_sample' and not value)}
    return GenerationConfig(**{key: given.get(key) for key in (
        'bos_token_id', 'eos_token_id', 'pad_token_id')}), asked


def greedy_rules(config: GenerationConfig, options: dict, device) -> list[Callable] | None:
    """Logits processors of a greedy search by our loop, in transformers' order.

    ``sequence_bias``, ``repetition_penalty``, ``no_repeat_ngram_size``, ``bad_words_ids`` and
    ``suppress_tokens`` compose with it, through transformers' own classes. Anything else that is
    not at its default (sampling, beams, penalties of length, ...) is left to transformers'
    ``generate``.

    Args:
        config: the network's own, which the options override.
        options: keys of ``GenerationConfig``.
        device: of the logits.

    Returns:
        functions of (ids so far (n, L), logits (n, V)), or ``None`` where transformers must write
        the answers.
    """
    config = copy.deepcopy(config)
    unknown = config.update(**options)
    chosen = {key: value for key, value in config.to_diff_dict().items() if value is not None}
    chosen = {key: value for key, value in chosen.items()
              if key not in NEUTRAL and value != OFF.get(key)}
    if (unknown or config.do_sample or config.max_new_tokens is None
            or not set(chosen) <= set(_PROCESSORS)):
        return None
    return [kind(chosen[key], **(dict(device=device) if key == 'suppress_tokens' else {}))
            for key, kind in _PROCESSORS.items() if key in chosen]
