"""What every command does before it works: it tells its arguments, quickly and without noise."""
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from simpleseg_mm import __version__, cli

ROOT = Path(__file__).resolve().parent.parent
TOOLS = sorted(path.relative_to(ROOT) for path in (ROOT / 'tools').rglob('*.py'))
#: runs a command, and says which libraries it has loaded that are not Python's own
LOADED = '''
import runpy, sys
before, path = set(sys.modules), sys.argv[1]
sys.argv[:2] = [path]
try:
    if path == "simpleseg":
        from simpleseg_mm.cli import main
        sys.exit(main())
    runpy.run_path(path, run_name="__main__")
finally:
    found = {name.partition(".")[0] for name in {*sys.modules} - before}
    known = sys.stdlib_module_names | {"simpleseg_mm", "__mp_main__"}
    print(*sorted(found - known), file=sys.stderr)
'''


@pytest.mark.parametrize('command', [
    *([str(path), '--help'] for path in TOOLS),
    *(['tools/dataset_converters/refcoco.py', name, '--help'] for name in ('convert', 'verify')),
    *(['tools/analysis_tools/analyze_logs.py', name, '--help']
      for name in ('plot_curve', 'cal_train_time')),
    ['simpleseg', '--help'], ['simpleseg', '--version'],
    *(['simpleseg', name, '--help'] for name in (*cli.COMMANDS, 'train', 'convert')),
    ['simpleseg', 'convert', 'own-data', '--help'],
], ids=' '.join)
def test_help_loads_no_library(command):
    """torch and transformers take seconds to load, and some libraries warn while they are."""
    done = subprocess.run([sys.executable, '-c', LOADED, *command], capture_output=True, text=True,
                          cwd=ROOT, env=dict(os.environ, PYTHONPATH=str(ROOT)))
    assert (done.returncode, done.stderr.split()) == (0, [])
    assert ('usage: ' if command[-1] == '--help' else __version__) in done.stdout


def test_names_to_choose_from_are_those_of_the_tables():
    from simpleseg_mm import choices
    from simpleseg_mm.datasets.shape_questions import QUESTION_KINDS
    from simpleseg_mm.export import FORMATS, SETS
    from simpleseg_mm.export.chat import TRAINERS
    from simpleseg_mm.polygon import GRAMMAR_FORMS, WANTED
    from simpleseg_mm.polygon.codec import PRESETS
    assert choices.EXPORT_FORMATS == tuple(sorted(FORMATS))
    assert choices.SET_FORMATS == tuple(sorted(SETS))
    assert choices.GRAMMAR_NOTATIONS == GRAMMAR_FORMS
    assert choices.GRAMMAR_ANSWERS == tuple(name for name, kind in WANTED.items() if kind)
    assert choices.CODEC_PRESETS == PRESETS
    assert choices.SHAPE_QUESTIONS == tuple(QUESTION_KINDS)
    assert choices.CHAT_TRAINERS == tuple(TRAINERS)
    assert all((ROOT / config).is_file() for config, _, _ in choices.BASES.values())


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
