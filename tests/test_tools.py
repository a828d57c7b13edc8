"""What every tool does before it works: it tells its arguments, quickly and without noise."""
import subprocess
import sys
from pathlib import Path

import pytest

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
