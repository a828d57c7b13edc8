"""One way of writing for validation, test, rollouts and exports, whatever the weights ask for."""
import json
import shutil
from pathlib import Path

import pytest
import torch
from engine_standin import run_tool
from mmengine.config import Config
from test_models_simpleseg import picture
from transformers import AutoModelForImageTextToText, GenerationConfig

from simpleseg_mm.apis import loading
from simpleseg_mm.models import SimpleSeg
from simpleseg_mm.models.generation import pinned
from simpleseg_mm.models.resources import packaged
from simpleseg_mm.models.sampling import Sampling

ROOT = Path(__file__).resolve().parent.parent
#: as Qwen2.5-VL's own file, with nano's ids
QWEN = dict(bos_token_id=0, pad_token_id=0, do_sample=True, eos_token_id=[2, 0],
            repetition_penalty=1.05, temperature=0.000001)
PICTURES = [picture(112, 84), picture(56, 56, 1), picture(112, 112, 2)]
PROMPTS = ['Where is the star?', 'Give the box of the red circle.', 'b']


@pytest.mark.parametrize('given, asked', [
    ({}, {}),
    (QWEN, dict(do_sample=True, repetition_penalty=1.05, temperature=0.000001)),
    (dict(QWEN, do_sample=False), dict(repetition_penalty=1.05)),
    (dict(num_beams=1, repetition_penalty=1.0, no_repeat_ngram_size=0, max_length=9), {}),
    (dict(custom_generate='folder', unknown=1), {}),
    *((dict([pair]), dict([pair])) for pair in dict(
        num_beams=4, min_new_tokens=9, bad_words_ids=[[1]], suppress_tokens=[1, 2],
        forced_eos_token_id=3, forced_bos_token_id=3, no_repeat_ngram_size=2, length_penalty=2.0,
        sequence_bias=[[[1], 2.0]], max_new_tokens=8, min_length=4).items()),
])
def test_what_a_folder_asks_for(given, asked):
    config, found = pinned(GenerationConfig(**given))
    assert found == asked
    ids = {key: given[key] for key in ('bos_token_id', 'eos_token_id', 'pad_token_id')
           if key in given}
    assert {key: value for key, value in config.to_diff_dict().items()
            if key != 'transformers_version'} == ids


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    copy = tmp_path_factory.mktemp('weights') / 'nano'
    shutil.copytree(packaged('nano'), copy)
    (copy / 'generation_config.json').write_text(json.dumps(QWEN))
    return copy


def build(folder, **generation):
    return SimpleSeg(dict(type='QwenVL', pretrained=str(folder)),
                     generation=dict(max_new_tokens=24, **generation)).eval()


def rollouts(model):
    seeds = [(3, prompt, g) for prompt in range(3) for g in range(2)]
    groups = model.sample(PICTURES, PROMPTS, 2, seeds, Sampling(24))
    return [answer.token_ids for group in groups for answer in group]


def texts(model):
    return [answer.text for answer in model.answer(PICTURES, PROMPTS)]


def test_the_folder_s_wishes_change_no_answer(folder):
    plain, asked = build('simpleseg_mm://nano'), build(folder)
    assert texts(asked) == texts(plain) and rollouts(asked) == rollouts(plain)
    assert asked.mllm.writer.stop_tokens == [0, 2] and plain.mllm.writer.stop_tokens == [2]
    assert asked.generation == plain.generation


@pytest.mark.parametrize('generation, taken', [
    ({}, 'not taken'), (dict(inherit=True), 'taken for validation'),
    (dict(repetition_penalty=1.0), 'do_sample=True, temperature=1e-06: not taken')])
def test_the_log_says_it_once(generation, taken, folder, monkeypatch):
    lines = []
    monkeypatch.setattr('simpleseg_mm.models.simpleseg.print_log',
                        lambda line, logger: lines.append(line))
    build(folder, **generation)
    assert len(lines) == 1 and taken in lines[0]
    build('simpleseg_mm://nano')
    assert len(lines) == 1


def test_a_config_may_ask_for_them(folder):
    penalised = build(folder, repetition_penalty=1.5)
    assert texts(penalised) != texts(build(folder))
    everything = build(folder, inherit=True)
    assert everything.generation == dict(max_new_tokens=24, do_sample=True, temperature=0.000001,
                                         repetition_penalty=1.05)
    torch.manual_seed(0)
    assert texts(everything) == texts(build(folder, repetition_penalty=1.05))
    assert rollouts(everything) == rollouts(build(folder))


@pytest.mark.slow
def test_the_figures_of_a_test_are_those_without_the_file(tmp_path, run):
    """With a penalty on repetition nano loses IoU: outlines repeat digits by nature."""
    run('dataset_converters/generate_refshapes.py', tmp_path / 'scenes', '--scenes-train', 1,
        '--scenes-val', 1, '--scenes-test', 8, '--workers', 1)
    shutil.copytree(packaged('nano_sft'), tmp_path / 'asked')
    (tmp_path / 'asked' / 'generation_config.json').write_text(json.dumps(QWEN))

    def figures(pretrained, *options):
        code, found, out = run(
            'test.py', ROOT / 'configs/simpleseg/nano_sft_refshapes.py', 'none', '--work-dir',
            tmp_path / f'run{len(list(tmp_path.iterdir()))}', '--cfg-options',
            f'model.mllm.pretrained={pretrained}', 'test_dataloader.num_workers=0',
            'test_dataloader.persistent_workers=False',
            f"test_dataloader.dataset.data_root={tmp_path / 'scenes'}", *options)
        assert code == 0, out
        del found['health/seconds']
        return found

    plain = figures('simpleseg_mm://nano_sft')
    assert plain['res/gIoU'] > 50
    assert figures(tmp_path / 'asked') == plain
    assert figures(tmp_path / 'asked', 'model.generation.inherit=True') != plain


@pytest.mark.slow
def test_an_export_says_it_to_transformers_and_vllm(folder, tmp_path):
    model = build(folder)
    config = tmp_path / 'config.py'
    Config(dict(custom_imports=dict(imports=['simpleseg_mm.models', 'simpleseg_mm.engine']),
                default_scope='simpleseg_mm', model=dict(type='SimpleSeg', mllm=dict(
                    type='QwenVL', pretrained=str(folder))))).dump(config)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'x.pth')
    result = run_tool('model_converters/to_huggingface.py', config, tmp_path / 'x.pth',
                      tmp_path / 'out')
    assert result.returncode == 0, result.stderr[-2000:]
    said = json.loads((tmp_path / 'out' / 'generation_config.json').read_text())
    assert said == dict(bos_token_id=0, eos_token_id=[2, 0], pad_token_id=0, do_sample=False,
                        temperature=0.0, repetition_penalty=1.0)
    read = AutoModelForImageTextToText.from_pretrained(tmp_path / 'out').eval()
    batch = model.mllm.encoder.encode(PICTURES[:1], [[(PROMPTS[0], None)]], for_generation=True)
    written = read.generate(**batch, max_new_tokens=24)[0, batch['input_ids'].shape[1]:]
    assert model.mllm.writer.read(written.tolist()).text == texts(model)[0]
    read.save_pretrained(tmp_path / 'again')  # of transformers' strict checks


@pytest.mark.parametrize('spoil, message', [
    (lambda state: {}, 'trainable, but not in the checkpoint'),
    (lambda state: {name: value for name, value in state.items() if 'visual' in name},
     'trainable, but not in the checkpoint'),
    (lambda state: {f'other.{name}': value for name, value in state.items()},
     'unknown to the model'),
    (lambda state: {name: value[:1] for name, value in state.items()}, 'of another shape'),
    (lambda state: dict(state, **{'mllm.hf.lm_head.weight': 'text'}), 'of another shape'),
    (lambda state: None, 'does not fit the model')])
def test_a_checkpoint_that_does_not_fit_is_not_exported(spoil, message, folder, tmp_path):
    model = build(folder)
    state = spoil(model.state_dict())
    torch.save(dict(optimizer=dict(state={}, param_groups=[])) if state is None else
               dict(state_dict=state, meta={}), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=message) as caught:
        loading.load_weights(model, Config(), str(tmp_path / 'x.pth'))
    assert '\n' not in str(caught.value)


def test_banned_tokens_are_looked_up_once(folder, monkeypatch):
    model = build(folder)
    model.answer(PICTURES[:1], PROMPTS[:1])
    monkeypatch.setattr(type(model.mllm.encoder.tokenizer), 'get_vocab', None)
    model.answer(PICTURES[:1], PROMPTS[:1])
