"""Folders of weights: code that is never run, files that are not all there; one line each."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from engine_standin import ROOT
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from simpleseg_mm.apis import loading
from simpleseg_mm.apis.notes import check_note, check_stored, parse_config
from simpleseg_mm.files import chat_template_of, check_folder, from_folder
from simpleseg_mm.models import build_mllm, requires
from simpleseg_mm.models.resources import packaged

POINTER = ('version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\n'
           'size 4932307584\n')
CODE = """from pathlib import Path
Path(__file__).parent.joinpath('CANARY').write_text('ran')
Path({canary!r}).write_text('ran')
class Config: pass
class Model: pass
class Tokenizer: pass
class Processor: pass
def segmenter(*args, **kwargs): pass
"""


def edit(path: Path, **keys) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **keys}))


@pytest.fixture
def folder(tmp_path):
    """nano's, to be spoilt; with a module that tells when it runs."""
    copy = tmp_path / 'weights'
    shutil.copytree(packaged('nano_sft'), copy)
    for name in ('code.py', 'hubconf.py', 'tokenization_own.py', 'custom_generate/generate.py'):
        (copy / name).parent.mkdir(exist_ok=True)
        (copy / name).write_text(CODE.format(canary=str(tmp_path / 'CANARY')))
    return copy


@pytest.fixture(autouse=True)
def typed_yes(monkeypatch, tmp_path):
    """Whoever is asked says yes; nothing may run for it."""
    asked = []
    monkeypatch.setattr('builtins.input', lambda *args: asked.append(args) or 'y')
    monkeypatch.setattr('transformers.dynamic_module_utils.HF_MODULES_CACHE', str(tmp_path / 'hf'))
    yield
    assert not asked and not (tmp_path / 'CANARY').exists()


MAP = dict(AutoConfig='code.Config', AutoModelForImageTextToText='code.Model',
           AutoTokenizer=['tokenization_own.Tokenizer', None], AutoProcessor='code.Processor')
HOSTILE = [
    ('config.json', dict(auto_map=MAP)),
    ('config.json', dict(auto_map=MAP, model_type='own')),
    ('config.json', dict(text_config=dict(model_type='qwen2', auto_map=MAP))),
    ('config.json', dict(attn_implementation='owner/kernel')),
    ('config.json', dict(vision_config=dict(_attn_implementation='owner/kernel'))),
    ('tokenizer_config.json', dict(auto_map=MAP, tokenizer_class='Tokenizer')),
    ('processor_config.json', dict(auto_map=MAP, processor_class='Processor')),
    ('preprocessor_config.json', dict(auto_map=dict(AutoImageProcessor='owner/x--code.Model'))),
]


@pytest.mark.parametrize('file, keys', HOSTILE)
@pytest.mark.parametrize('loader', [AutoConfig, AutoTokenizer, AutoProcessor,
                                    AutoModelForImageTextToText])
def test_code_of_a_folder_is_refused(file, keys, loader, folder):
    edit(folder / file, **keys)
    with pytest.raises(ValueError, match=rf'holds remote code \(.* in {file}\), which is never') \
            as caught:
        from_folder(loader.from_pretrained, folder)
    assert '\n' not in str(caught.value)
    with pytest.raises(ValueError, match='remote code'):
        loading.resolve(str(folder), None)


def test_a_released_kimi_is_converted(folder):
    edit(folder / 'config.json', model_type='kimi_vl', auto_map=MAP)
    with pytest.raises(ValueError, match='remote code, which is never run here. Convert it once, '
                       f'simpleseg convert kimi-vl {folder} OUT'):
        from_folder(AutoConfig.from_pretrained, folder)


def test_files_that_are_not_asked_for_do_not_run(folder):
    """Modules and ``custom_generate`` beside weights that transformers has a class for."""
    check_folder(folder)
    from_folder(AutoModelForImageTextToText.from_pretrained, folder)


def test_a_template_is_run_in_a_sandbox(folder):
    (folder / 'chat_template.jinja').write_text(
        "{{ ''.__class__.__mro__[1].__subclasses__() }}")
    tokenizer = from_folder(AutoTokenizer.from_pretrained, folder)
    with pytest.raises(Exception, match='unsafe|is undefined'):
        tokenizer.apply_chat_template([dict(role='user', content='a')], tokenize=False)


@pytest.mark.slow
@pytest.mark.parametrize('file, keys', [HOSTILE[1], HOSTILE[5],
                                        ('config.json', dict(model_type='kimi_vl', auto_map=MAP))])
@pytest.mark.parametrize('tool', [
    ('test.py', 'CONFIG', 'none', '--cfg-options', 'model.mllm.pretrained=FOLDER'),
    ('train.py', 'CONFIG', '--cfg-options', 'model.mllm.pretrained=FOLDER'),
    ('model_converters/to_huggingface.py', 'CONFIG', 'x.pth', 'OUT', '--cfg-options',
     'model.mllm.pretrained=FOLDER'),
    ('model_converters/kimi_vl.py', 'FOLDER', 'OUT'),
    ('model_converters/kimi_vl.py', '--back', 'FOLDER', 'OUT'),
    ('serve.py', '--model', 'FOLDER', '--port', '0')], ids=lambda tool: ' '.join(tool[:2]))
def test_tools_are_told_yes(tool, file, keys, folder, tmp_path):
    edit(folder / file, **keys)
    named = dict(CONFIG=str(ROOT / 'configs/simpleseg/nano_sft_refshapes.py'), OUT='out')
    args = [named.get(word, word).replace('FOLDER', str(folder)) for word in tool]
    torch.save(dict(state_dict={}), tmp_path / 'x.pth')
    result = subprocess.run([sys.executable, str(ROOT / 'tools' / args[0]), *args[1:]],
                            input='y\n' * 50, text=True, capture_output=True, cwd=tmp_path,
                            env=dict(os.environ, PYTHONPATH=str(ROOT)), timeout=600)
    assert result.returncode and 'Do you wish' not in result.stdout + result.stderr
    assert not list(tmp_path.rglob('CANARY'))


@pytest.mark.parametrize('version', ['4.57.1', '5.17.3', '5.0.0rc1'])
def test_an_old_transformers_is_named(version):
    with pytest.raises(ImportError, match=rf'{version} is too old.*"transformers>=5.18,<6"'):
        requires.check(version)
    for new in ('5.18.0', '5.24.0.dev0', '6.0'):
        requires.check(new)
    assert 'transformers>={}.{},<6'.format(*requires.OLDEST) in (ROOT / 'setup.cfg').read_text()


@pytest.mark.parametrize('adapter, folder, message', [
    ('KimiVL', 'nano', "KimiVL reads kimi_k25, and .*nano is a qwen2_5_vl: set "
     "model.mllm.type='QwenVL'"),
    ('QwenVL', 'kimi', "QwenVL reads qwen2_vl, .*is a kimi_k25: set model.mllm.type='KimiVL'"),
    ('QwenVL', 'gemma3', "is a gemma3: set model.mllm.type='AutoVLM'"),
    ('QwenVL', 'llama', 'is a llama: transformers has no network of this type that reads pict')])
def test_an_adapter_of_another_family(adapter, folder, message, tmp_path):
    if folder != 'nano':
        edit(tmp_path / 'config.json', model_type=dict(kimi='kimi_k25').get(folder, folder))
    with pytest.raises(ValueError, match=message):
        build_mllm(dict(type=adapter, pretrained='simpleseg_mm://nano' if folder == 'nano'
                        else str(tmp_path)))


# --- files that are not all there --------------------------------------------------------------
@pytest.mark.parametrize('file, content, message', [
    ('model.safetensors', POINTER, 'pointer of Git LFS.*git lfs pull'),
    ('tokenizer.json', POINTER, 'tokenizer.json is a pointer of Git LFS'),
    ('config.json', POINTER, 'config.json is a pointer of Git LFS'),
    ('preprocessor_config.json', POINTER, 'pointer of Git LFS'),
    ('chat_template.jinja', POINTER, 'pointer of Git LFS'),
    ('model.safetensors', '', 'model.safetensors is empty'),
    ('model.safetensors', 'x' * 100, 'cannot be loaded'),
    ('tokenizer.json', '{}', 'cannot be loaded'),
    ('tokenizer.json', '{"model": ', 'cannot be loaded'),
    ('config.json', '[]', 'holds no settings by name'),
    ('config.json', '{"model_type": "qwen2_5_vl"', 'config.json is not readable JSON'),
    ('model.safetensors.index.json', '{}', 'has no weight_map'),
    ('model.safetensors.index.json', '{"weight_map": {"a": 1}}', 'has no weight_map'),
    ('model.safetensors.index.json', '{"weight_map": {"a": "../b.safetensors"}}',
     'names files outside of its folder'),
    ('model.safetensors.index.json', '{"weight_map": {"a": "b.safetensors", "c": "d"}}',
     'index.json names b.safetensors, d, which the folder does not hold: fetch them again'),
    ('adapter_config.json', '{"peft_type": "LORA"}', 'LoRA adapter.*merge it'),
])
def test_files_that_are_not_whole(file, content, message, folder):
    (folder / file).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
        for loader in (AutoConfig, AutoTokenizer, AutoModelForImageTextToText):
            from_folder(loader.from_pretrained, folder)
    assert '\n' not in str(caught.value)


def test_a_cut_file_of_weights(folder):
    raw = (folder / 'model.safetensors').read_bytes()
    (folder / 'model.safetensors').write_bytes(raw[:len(raw) // 2])
    with pytest.raises(ValueError, match='is a folder, but cannot be loaded'):
        from_folder(AutoModelForImageTextToText.from_pretrained, folder)


@pytest.mark.parametrize('content, template', [
    ('{"chat_template": "a"}', 'a'), ('{"chat_template": ["a"]}', None), ('{}', None),
    ('[]', None)])
def test_a_template_in_a_file_of_its_own(content, template, tmp_path):
    assert chat_template_of(tmp_path) is None
    (tmp_path / 'chat_template.json').write_text(content)
    assert chat_template_of(tmp_path) == template


# --- what says how weights are used -----------------------------------------------------------
QUERY = dict(type='FormatQuery', codec=dict(grammar='int100', tokens=40))
NOTE = dict(mllm=dict(type='QwenVL'), generation=dict(max_new_tokens=160), query=QUERY)
HUB = dict(type='torch.hub.load', repo_or_dir='FOLDER', model='segmenter', source='local')


@pytest.mark.parametrize('change, message', [
    (dict(mllm=HUB), "mllm.type is 'torch.hub.load', and may be one of AutoVLM, KimiVL, QwenVL"),
    (dict(query=HUB), 'query lacks'),
    (dict(query=dict(HUB, codec={})), 'query has the key|query.type is'),
    (dict(query=dict(QUERY, type='torch.hub.load')), "query.type is 'torch.hub.load'"),
    (dict(mllm=dict(type='SimpleSeg', mllm=HUB)), "mllm.type is 'SimpleSeg'"),
    (dict(mllm=dict(type='mmdet.QwenVL')), 'mllm.type'),
    (dict(mllm=dict(type=['QwenVL'])), 'mllm.type'),
    (dict(mllm=dict(type='QwenVL', pretrained='x')), "mllm has the key 'pretrained'"),
    (dict(mllm=dict(type='QwenVL', dtype='load')), 'mllm.dtype'),
    (dict(mllm=dict(type='QwenVL', max_pixels='1')), 'mllm.max_pixels'),
    (dict(mllm=dict(type='QwenVL', system_prompt=HUB)), 'mllm.system_prompt'),
    (dict(mllm=dict(type='QwenVL', _scope_='mmdet')), "mllm has the key '_scope_'"),
    (dict(generation=dict(custom_generate='FOLDER')), "generation has the key 'custom_generate'"),
    (dict(generation=dict(max_new_tokens=10 ** 9)), 'generation.max_new_tokens'),
    (dict(generation=dict(max_new_tokens=True)), 'generation.max_new_tokens'),
    (dict(generation=dict(sequence_bias=HUB)), 'generation.sequence_bias'),
    (dict(query=dict(QUERY, codec=dict(grammar='roman'))), 'query.codec'),
    (dict(query=dict(QUERY, codec=dict(grammar=HUB))), 'query.codec'),
    (dict(query=dict(QUERY, codec=dict(preset='x'))), 'preset'),
    (dict(taught=dict(prompts=['code'])), 'taught'),
    (dict(taught=HUB), 'taught'),
    (dict(mllm=None), 'mllm is None'),
    (dict(custom_imports=dict(imports=['code'])), "it has the key 'custom_imports'"),
])
def test_notes_name_nothing_but_our_own(change, message, folder):
    note = json.loads(json.dumps({**NOTE, **change}).replace('FOLDER', str(folder)))
    (folder / loading.NOTE).write_text(json.dumps(note))
    with pytest.raises(ValueError, match=message) as caught:
        loading.resolve(str(folder), None)
    assert '\n' not in str(caught.value) and str(folder / loading.NOTE) in str(caught.value)


@pytest.mark.parametrize('content', ['[]', '{}', 'null', '{"mllm": {}}', '{', '1', POINTER])
def test_notes_that_are_none(content, folder):
    (folder / loading.NOTE).write_text(content)
    with pytest.raises(ValueError):
        loading.resolve(str(folder), None)


def test_a_note_is_taken_as_it_is(folder):
    assert check_note(NOTE, 'x') == NOTE
    cfg, weights = loading.resolve(str(folder), None)
    assert (cfg.model.mllm.pretrained, weights) == (str(folder), None)


@pytest.mark.parametrize('text', [
    'import os', 'a = __import__("os").system("x")', 'a = open("x")', 'a = b', 'a.b = 1',
    'a = b = 1', 'a = [x for x in (1,)]', 'a = dict(**{})', 'a = {[]: 1}', 'a = (lambda: 1)()',
    'a = f"{1}"', 'a = "x" % 1', 'a = ' + '[' * 1000 + ']' * 1000, 'a = ' + '-' * 100_000 + '1',
    'a = 1' + '0' * 5000, 'a = 1\x00', 'x' * (1 << 21), 'def a(): pass', '1', None, b'a = 1'])
def test_stored_configs_are_read_and_not_run(text):
    with pytest.raises(ValueError, match='give the config file too') as caught:
        parse_config(text, 'x.pth')
    assert len(str(caught.value).splitlines()) == 1


def test_a_stored_config_is_what_was_stored():
    text = 'a = dict(b=[1, -2.5, dict(c=None)], d={\n"e f": (True, ), 3: dict({"g h": "i"})})\n' \
           'e = inf\n'
    assert parse_config(text, 'x') == dict(
        a=dict(b=[1, -2.5, dict(c=None)], d={'e f': (True, ), 3: {'g h': 'i'}}), e=float('inf'))


MODEL = dict(type='SimpleSeg', mllm=dict(type='QwenVL', pretrained='simpleseg_mm://nano'))


@pytest.mark.parametrize('change, message', [
    (dict(model=HUB), 'model lacks'),
    (dict(model=dict(MODEL, type='torch.hub.load')), 'model.type is'),
    (dict(model=dict(MODEL, mllm=HUB)), 'model.mllm.type is'),
    (dict(model=dict(MODEL, data_preprocessor=HUB)), 'model.data_preprocessor'),
    (dict(model=dict(MODEL, init_cfg=HUB)), 'model.init_cfg'),
    (dict(model=dict(MODEL, mllm=dict(MODEL['mllm'], lora=dict(megatron_core='a')))), 'mllm.lora'),
    (dict(model=dict(MODEL, mllm=dict(MODEL['mllm'], config=dict(auto_map=MAP)))), 'mllm.config'),
    (dict(model=dict(MODEL, mllm=dict(MODEL['mllm'], attn_implementation='a/b'))), 'attn_impl'),
    (dict(test_dataloader=dict(dataset=dict(query=HUB))), 'dataset.query'),
    (dict(test_dataloader=dict(dataset=dict(query=QUERY, pipeline=[HUB]))), 'dataset.pipeline'),
    (dict(visualizer=HUB), 'visualizer'),
    (dict(model=None), 'model is None'),
])
def test_stored_configs_name_nothing_but_our_own(change, message):
    config = dict(model=MODEL, test_dataloader=dict(dataset=dict(query=QUERY)))
    check_stored(config, 'x')
    with pytest.raises(ValueError, match=message):
        check_stored({**config, **change}, 'x')


@pytest.mark.parametrize('text, message', [
    ('from pathlib import Path\nPath({canary!r}).write_text("ran")', 'is not run'),
    ('model = dict(type="torch.hub.load", repo_or_dir={folder!r}, model="segmenter", '
     'source="local")', 'model lacks|model.type'),
    ('custom_imports = dict(imports=["code"])\nmodel = dict(type="SimpleSeg", mllm=dict('
     'type="torch.hub.load", repo_or_dir={folder!r}, model="segmenter", source="local"))',
     'mllm.type is'),
    ('model = dict(type="SimpleSeg", mllm=dict(type="InternVL"))', "mllm.type is 'InternVL'.*"
     'config file')])
@pytest.mark.parametrize('place', [('message_hub', 'runtime_info', 'cfg'), ('meta', 'cfg')])
def test_a_config_in_a_checkpoint_does_not_run(text, message, place, folder, tmp_path):
    content = text.format(canary=str(tmp_path / 'CANARY'), folder=str(folder))
    for key in reversed(place):
        content = {key: content}
    torch.save(dict(state_dict={}, **content), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match=message) as caught:
        loading.resolve(None, str(tmp_path / 'x.pth'))
    assert '\n' not in str(caught.value)


class Gadget:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return exec, (f'open({self.path!r}, "w").write("ran")', )


@pytest.mark.parametrize('spoil', [
    lambda gadget: gadget, lambda gadget: dict(state_dict=dict(a=gadget)),
    lambda gadget: dict(state_dict={}, optimizer=gadget),
    lambda gadget: dict(state_dict={}, message_hub=dict(runtime_info=gadget))])
def test_objects_in_a_checkpoint_do_not_run(spoil, tmp_path):
    torch.save(spoil(Gadget(str(tmp_path / 'CANARY'))), tmp_path / 'x.pth')
    with pytest.raises(ValueError, match='could run code'):
        loading.resolve(None, str(tmp_path / 'x.pth'))
    with pytest.raises(ValueError, match='could run code'):
        loading.load_weights(None, None, str(tmp_path / 'x.pth'))
