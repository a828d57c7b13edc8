"""The reward as other trainers call it: by their documented forms, and by their own code where it
loads (TRL: test_rl_trl.py)."""
import asyncio
import importlib
import inspect
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from simpleseg_mm.polygon import mask_to_rle
from simpleseg_mm.rl import (PolygonReward, easyr1_reward, ms_swift_reward, trl_reward,
                             verl_reward)

TRUTH = np.zeros((100, 100), bool)
TRUTH[10:50, 10:50] = True
RLE = mask_to_rle(TRUTH)
#: the truth by two grammars, and half of it
ANSWERS = ['[[[10,10],[50,10],[50,50],[10,50]]]',
           '[[[0.100, 0.100], [0.500, 0.100], [0.500, 0.500], [0.100, 0.500]]]',
           '[[[10,10],[30,10],[30,50],[10,50]]]']
CODECS = ['int100/default', 'decimal3/default', 'int100/default']
VALUES = [1, 1, .5]


def imported(name):
    """A module of a trainer that may not be here, or not load here."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # such as libraries for GPUs
        pytest.skip(f'{name}: {error!r:.200}')


@pytest.fixture
def reward():
    return PolygonReward(dict(mask_iou=1), 'int100/default')


@pytest.fixture
def length():
    """Tells how many tokens an answer has, whether it is finished, and what was asked."""
    return PolygonReward(dict(tokens=1, cut=1000, asked=1e6), 'int100/default', extra=dict(
        tokens=lambda query: query.answer.num_tokens or 0,
        cut=lambda query: not query.answer.finished,
        asked=lambda query: len(query.prompt or '')))


# --- refused ---------------------------------------------------------------------------------
@pytest.mark.parametrize('call, message', [
    (lambda r: trl_reward(r)(completions=['x']), "no column 'mask'"),
    (lambda r: trl_reward(r)(completions=['x'], mask=RLE), "column 'mask' is .*a list with one"),
    (lambda r: trl_reward(r)(completions=['x'], mask=[RLE] * 2), "there are 1 completions, and"),
    (lambda r: trl_reward(r)(completions=['x'], mask=[RLE], codec='int100/default'),
     "column 'codec' is 'int100/default': give a list"),
    (lambda r: trl_reward(r)(completions=['x'], mask=[RLE], codec=['int5']), "spec is 'int5'"),
    (lambda r: ms_swift_reward(r, 'target')()(['x'], mask=[RLE]), "no column 'target'"),
    (lambda r: verl_reward(r)('own', 'x', None), 'a target is .*NoneType'),
    (lambda r: verl_reward(r)('own', 'x', 'words'), 'a target is the text'),
    (lambda r: verl_reward(r)(data_sources=['own'], solution_strs=['x', 'y'], ground_truths=[RLE],
                              extra_infos=[{}]), '2 texts, but'),
    (lambda r: easyr1_reward(r)(dict(response='x')), 'response and ground_truth'),
    (lambda r: verl_reward(PolygonReward(dict(reward=1), extra=dict(reward=lambda q: 1)))(
        'own', 'x', RLE), "named 'reward'"),
])
def test_bad_calls(reward, call, message):
    with pytest.raises(ValueError, match=message) as error:
        call(reward)
    assert '\n' not in str(error.value)


# --- the forms as they are documented ---------------------------------------------------------
def test_codecs_of_rows(reward):
    """None and '' are the reward's own."""
    truths, texts = [RLE, json.dumps(RLE), TRUTH], ANSWERS
    columns = dict(mask=truths, codec=[None, CODECS[1], ''])
    assert trl_reward(reward)(prompts=['?'] * 3, completions=texts, **columns) == VALUES
    assert ms_swift_reward(reward)()(texts, **columns) == VALUES
    infos = [None, dict(codec=CODECS[1]), dict(codec=None)]
    single = [verl_reward(reward)('own', *row) for row in zip(texts, truths, infos)]
    assert [score['score'] for score in single] == VALUES
    batch = verl_reward(reward)(data_sources=np.array(['own'] * 3, object), solution_strs=texts,
                                ground_truths=truths, extra_infos=np.array(infos, object))
    assert batch == single
    by_truth = [verl_reward(reward, codec='spec')('own', text, RLE, dict(spec=spec, codec='x'))
                for text, spec in zip(texts, CODECS)]
    assert [score['score'] for score in by_truth] == VALUES


def test_rows_without_a_truth_do_not_apply(reward):
    """Of sets that are mixed with others."""
    columns = dict(mask=[RLE, None, RLE], codec=CODECS)
    assert trl_reward(reward)(completions=ANSWERS, **columns) == [1, None, .5]
    assert ms_swift_reward(reward)()(ANSWERS, **columns) == [1, None, .5]
    assert trl_reward(reward)(completions=ANSWERS, mask=[None] * 3) == [None] * 3
    assert trl_reward(reward)(prompts=[], completions=[], completion_ids=[], mask=[]) == []


@pytest.mark.parametrize('message', [
    None, [], '', [dict(role='assistant', content=None)], [dict(role='assistant')],
    [dict(role='assistant', content=[dict(type='image')])]])
def test_completions_without_words(reward, message):
    assert trl_reward(reward)(completions=[message], mask=[RLE]) == [0]


def test_tokens_and_ends_are_taken_where_they_are_told(length):
    truth = dict(mask=[RLE] * 2)
    assert trl_reward(length)(completions=['a', 'b'], completion_ids=[[1, 2], [1] * 7],
                              prompts=['one', 'four'], **truth) == [3e6 + 2, 4e6 + 7]
    messages = [[dict(role='system', content='You draw.'),
                 dict(role='user', content='<image>one'),
                 dict(role='assistant', content='a')]] * 2
    assert ms_swift_reward(length)()(
        ['a', 'b'], messages=messages, is_truncated=[True, False], **truth,
        response_token_ids=[[5, 6, 7], []]) == [3e6 + 1003, 3e6]
    assert ms_swift_reward(length)()(  # of several turns
        ['a', 'b'], messages=messages, response_token_ids=[[[1], [2, 3]], [[4]]],
        **truth) == [3e6 + 2, 3e6 + 1]
    record = dict(response='a', ground_truth=json.dumps(RLE))
    assert easyr1_reward(length)(dict(record, response_length=9))['overall'] == 9
    assert verl_reward(length)('own', 'a', RLE, dict(prompt='one'))['score'] == 3e6


def test_easyr1_gives_its_settings_by_name(reward):
    """It calls with one argument by place, batches first; a dict of its own is a record."""
    function = easyr1_reward(reward)
    assert len(inspect.signature(function).parameters) == 1
    records = [dict(response=text, response_length=9, ground_truth=json.dumps(RLE))
               for text in (ANSWERS[0], ANSWERS[2])]
    assert [score['overall'] for score in function(records)] == [1, .5]
    assert function(records[0]) == dict(overall=1, mask_iou=1)


# --- by the trainers' own code ----------------------------------------------------------------
class Tokenizer:
    """Ids are characters."""

    def decode(self, ids, skip_special_tokens=True):
        return ''.join(map(chr, ids.tolist()))


def verl_batch(prompt=4):
    """Three answers as verl holds them."""
    protocol = imported('verl.protocol')
    width = max(map(len, ANSWERS))
    ids = torch.zeros(3, width, dtype=torch.long)
    mask = torch.zeros(3, prompt + width, dtype=torch.long)
    for row, text in enumerate(ANSWERS):
        ids[row, :len(text)] = torch.tensor(list(map(ord, text)))
        mask[row, :prompt + len(text)] = 1
    return protocol.DataProto.from_dict(
        tensors=dict(prompts=torch.full((3, prompt), ord('?')), responses=ids,
                     attention_mask=mask),
        non_tensors=dict(
            data_source=np.array(['own'] * 3, object),
            reward_model=np.array([dict(style='rule', ground_truth=json.dumps(RLE))
                                   for _ in range(3)], object),
            extra_info=np.array([dict(index=i, codec=spec)
                                 for i, spec in enumerate(CODECS)], object)))


@pytest.mark.parametrize('name', ['naive', 'batch'])
def test_managers_of_verl(reward, name):
    managers = imported('verl.workers.reward_manager')
    manager = managers.get_reward_manager_cls(name)(Tokenizer(), 0, verl_reward(reward))
    found = manager(verl_batch(), return_dict=True)
    assert found['reward_tensor'].sum(1).tolist() == VALUES
    assert found['reward_extra_info']['mask_iou'] == VALUES


@pytest.mark.parametrize('name', ['naive', 'dapo', 'gdpo'])
def test_reward_loop_of_verl(reward, name):
    omegaconf = imported('omegaconf')
    managers = imported('verl.experimental.reward_loop.reward_manager')
    config = omegaconf.OmegaConf.create(dict(
        trainer=dict(experiment_name='x'), reward=dict(reward_kwargs={})))

    async def score():
        manager = managers.get_reward_manager_cls(name)(config, Tokenizer(), verl_reward(reward))
        batch = verl_batch()
        return [await manager.run_single(batch[i:i + 1]) for i in range(3)]
    found = asyncio.run(score())
    assert [one['reward_score'] for one in found] == VALUES
    assert [one['reward_extra_info']['mask_iou'] for one in found] == VALUES


def test_a_function_in_a_file_is_found_by_verl(reward, tmp_path):
    omegaconf = imported('omegaconf')
    loading = imported('verl.trainer.ppo.reward')
    path = tmp_path / 'my_reward.py'
    path.write_text(
        'from simpleseg_mm.rl import PolygonReward, verl_reward\n'
        "compute_score = verl_reward(PolygonReward(dict(mask_iou=1.0), 'int100/default'))\n")
    function = loading.get_custom_reward_fn(omegaconf.OmegaConf.create(dict(reward=dict(
        custom_reward_function=dict(path=str(path), name='compute_score')))))
    assert function(data_source='own', solution_str=ANSWERS[0], ground_truth=json.dumps(RLE),
                    extra_info={}) == dict(score=1, mask_iou=1)


def test_rewards_of_ms_swift(reward):
    algorithm = imported('swift.rl_core.grpo_algorithm')
    data = imported('swift.rl_core.data')
    samples = [data.GRPOSample.from_row(dict(
        messages=[dict(role='user', content='<image>?'), dict(role='assistant', content=text)],
        images=[], mask=truth, codec=spec, finish_reason='stop', response_token_ids=[1, 2]))
        for text, spec, truth in zip(ANSWERS, CODECS, [json.dumps(RLE), None, json.dumps(RLE)])]
    function = ms_swift_reward(reward)(args=SimpleNamespace())
    found = algorithm.compute_rewards_per_func(samples, [function, lambda *_, **__: [0.] * 3],
                                               None, torch.device('cpu'))
    assert found[:, 0].isnan().tolist() == [False, True, False]
    assert found[[0, 2], 0].tolist() == [1, .5]


def test_ms_swift_s_registry_makes_the_class(reward):
    rewards = imported('swift.rewards.orm')  # the package itself loads nothing
    made = ms_swift_reward(reward)
    taken = inspect.signature(rewards.ORM.__init__).parameters
    assert 'args' in taken and made(args=None)
    assert not inspect.iscoroutinefunction(made.__call__)
