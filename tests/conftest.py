"""Fixtures shared by the tests."""
import gc
import json
import os
import runpy
import signal
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]


def pytest_addoption(parser) -> None:
    parser.addoption('--acceleration', choices=('auto', 'none'), default='auto',
                     help='of models whose test names no measures; none: transformers\' own steps')


@pytest.fixture(scope='module', autouse=True)
def frozen_libraries() -> None:
    """What is imported by now is left out of garbage collections: MMEngine asks for one whenever
    a dataset is built, and each would look at a million objects of libraries."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope='session', autouse=True)
def acceleration(request):
    """Models whose test names no measures have those of ``--acceleration``."""
    with pytest.MonkeyPatch.context() as patch:
        if request.config.getoption('--acceleration') == 'none':
            from simpleseg_mm.models import simpleseg
            build = simpleseg.build_mllm
            patch.setattr(simpleseg, 'build_mllm', lambda cfg: build(
                {'acceleration': [], **cfg}))
        yield


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Folder with ``coco_photos``, ``refcoco_mini`` and ``refexp``, named by SIMPLESEG_DATA."""
    root = os.environ.get('SIMPLESEG_DATA')
    if not root:
        pytest.skip('set SIMPLESEG_DATA to the folder with coco_photos, refcoco_mini and refexp')
    path = Path(root).resolve()  # tests work in folders of their own
    if not path.is_dir():
        raise FileNotFoundError(f'SIMPLESEG_DATA={root} is not a folder')
    return path


@pytest.fixture(scope='module')
def one_thread():
    """For tests that compare bit for bit: the order of a sum may depend on the threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a tool; returns its exit code and the JSON object of its last line."""
    def run_tool(tool: str, *args) -> tuple[int, dict, str]:
        monkeypatch.setattr(sys, 'argv', [tool, *map(str, args)])
        code, handlers = 0, {number: signal.getsignal(number)
                             for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')
        except SystemExit as end:
            code = end.code or 0
        finally:  # a tool sets its own
            for number, handler in handlers.items():
                signal.signal(number, handler)
        out = capsys.readouterr().out
        lines = out.strip().splitlines()
        return code, json.loads(lines[-1]) if lines and lines[-1][0] == '{' else {}, out
    return run_tool
