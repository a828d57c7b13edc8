"""What every tool does before it works: it tells its arguments, quickly and without noise."""
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parent.parent
TOOLS = sorted(path for path in (ROOT / 'tools').rglob('*.py') if path.parent.name != 'nano')


@pytest.mark.parametrize('tool', TOOLS, ids=lambda path: path.name)
def test_help_loads_no_network_library(tool):
    """transformers takes ten seconds to load, and warns of what is not installed."""
    code = (f'import runpy, sys; sys.argv = [{str(tool)!r}, "--help"]\n'
            'try:\n'
            f'    runpy.run_path({str(tool)!r}, run_name="__main__")\n'
            'finally:\n'
            '    print("transformers" in sys.modules, file=sys.stderr)')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.split() == ['False'] and 'usage:' in done.stdout


@pytest.mark.parametrize('pointer, found', [
    ('/elsewhere/best_x_iter_4.pth', 'best_x_iter_4.pth'),  # of this run
    (None, 'best_x_iter_2.pth')])
def test_quickstart_goes_on_from_the_best_checkpoint_of_the_run(tmp_path, monkeypatch, pointer,
                                                                found):
    """A copy of the folder may give its files any times."""
    quickstart = runpy.run_path(str(ROOT / 'tools/quickstart.py'), run_name='quickstart')
    for seconds, name in enumerate(('iter_6.pth', 'best_x_iter_4.pth', 'best_x_iter_2.pth')):
        torch.save(dict(state_dict={}), tmp_path / name)
        os.utime(tmp_path / name, (seconds, seconds))
    if pointer:
        (tmp_path / 'best_checkpoint').write_text(pointer)
    monkeypatch.setitem(quickstart['train'].__globals__, 'run', lambda *args: None)
    assert quickstart['train']('sft', tmp_path, tmp_path) == str(tmp_path / found)
