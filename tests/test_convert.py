"""Trained weights in Hugging Face's form: the same logits and text by transformers and PEFT."""
import subprocess
import sys

import numpy as np
import pytest
import torch
from engine_standin import ROOT, run_tool

from simpleseg_mm.models import SimpleSeg

LORA = dict(r=4, lora_alpha=8, target_modules=r'.*language_model.*\.(q_proj|down_proj)')

# transformers alone: reads a folder and a batch, writes logits and greedy tokens
READER = """
import sys, torch
from transformers import AutoModelForImageTextToText
assert not any(name.startswith('simpleseg_mm') for name in sys.modules)
base, adapter, batch, out = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
if adapter != '-':
    from peft import PeftModel
    model = PeftModel.from_pretrained(model, adapter)
model.eval()
batch = torch.load(batch)
with torch.no_grad():
    logits = model(**batch).logits
    tokens = model.generate(**batch, max_new_tokens=12, do_sample=False)
torch.save(dict(logits=logits, tokens=tokens), out)
"""


@pytest.mark.parametrize('lora, keep', [
    pytest.param(None, False, marks=pytest.mark.slow),
    pytest.param(LORA, False, marks=pytest.mark.slow),
    pytest.param(LORA, True, marks=pytest.mark.slow)])
def test_transformers_alone_writes_the_same(lora, keep, tmp_path, one_thread):
    mllm = dict(type='QwenVL', pretrained='simpleseg_mm://nano', lora=lora,
                train_with_lora=['projector'] if lora else ())
    torch.manual_seed(0)
    model = SimpleSeg(dict(mllm)).eval()
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.data += 0.02 * torch.randn_like(p)
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'trained.pth')
    config = tmp_path / 'config.py'
    config.write_text(
        "custom_imports = dict(imports=['simpleseg_mm.models', 'simpleseg_mm.engine'])\n"
        f"default_scope = 'simpleseg_mm'\nmodel = dict(type='SimpleSeg', mllm={mllm!r})\n")
    result = run_tool('model_converters/to_huggingface.py', config, tmp_path / 'trained.pth',
                      tmp_path / 'out', *(['--keep-lora'] if keep else []))
    assert result.returncode == 0, result.stderr[-2000:]

    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 112, 112), np.uint8))
    batch = model.mllm.encoder.encode([image], [[('Where is the star?', None)]],
                                      for_generation=True)
    torch.save(batch, tmp_path / 'batch.pt')
    base = ROOT / 'simpleseg_mm/zoo/nano' if keep else tmp_path / 'out'
    read = subprocess.run(
        [sys.executable, '-c', READER, str(base), str(tmp_path / 'out') if keep else '-',
         str(tmp_path / 'batch.pt'), str(tmp_path / 'read.pt')],
        text=True, capture_output=True, cwd=tmp_path)
    assert read.returncode == 0, read.stderr[-2000:]
    read = torch.load(tmp_path / 'read.pt')
    with torch.no_grad():
        tokens = model.mllm.hf.generate(**batch, max_new_tokens=12, do_sample=False)
        for module in model.mllm.hf.modules():  # by transformers' own steps: ours round otherwise
            module.__dict__.pop('forward', None)
        logits = model.mllm.hf(**batch).logits
    assert (read['logits'] - logits).abs().max() <= (1e-6 if lora is None or keep else 1e-4)
    assert torch.equal(read['tokens'], tokens)


@pytest.mark.slow
def test_what_cannot_be_exported_leaves_no_folder(tmp_path):
    from mmengine.config import Config
    config = tmp_path / 'config.py'
    Config(dict(custom_imports=dict(imports=['simpleseg_mm.models']), model=dict(
        type='SimpleSeg', mllm=dict(type='QwenVL', pretrained='simpleseg_mm://nano')))).dump(config)
    model = SimpleSeg(dict(type='QwenVL', pretrained='simpleseg_mm://nano'))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'x.pth')
    result = run_tool('model_converters/to_huggingface.py', config, tmp_path / 'x.pth',
                      tmp_path / 'out', '--keep-lora')
    assert result.returncode == 2 and 'without LoRA' in result.stdout.splitlines()[-1]
    torch.save(dict(state_dict={}), tmp_path / 'x.pth')
    result = run_tool('model_converters/to_huggingface.py', config, tmp_path / 'x.pth',
                      tmp_path / 'out')
    assert result.returncode == 2 and 'not fit the model' in result.stdout.splitlines()[-1]
    assert 'Traceback' not in result.stderr and not (tmp_path / 'out').exists()
