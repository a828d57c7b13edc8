"""What ``make test-compat`` and ``make test-vllm`` test is what setup.cfg and the pages allow."""
import re
from pathlib import Path

import compat
import pytest
import vllm_env

from simpleseg_mm.engines.base import TESTED_VLLM, check_version

ROOT = Path(__file__).resolve().parents[1]


def test_environments_are_the_ends_of_the_ranges():
    assert compat.environments() == {
        'transformers-oldest': ('3.11', '==5.18'), 'transformers-newest': ('3.11', '>=5.18,<6'),
        'python-3.10': ('3.10', None), 'python-3.12': ('3.12', None)}
    # the pages say the same
    setup, page = ((ROOT / name).read_text() for name in ('setup.cfg', 'docs/dependencies.md'))
    assert 'transformers>=5.18,<6' in setup and '`transformers >= 5.18, < 6`' in page
    assert 'python_requires = >=3.10,<3.13' in setup and '3.10 to 3.12' in page


@pytest.mark.parametrize('version, transformers, torch, numpy, own, backports', [
    ('3.11', '==5.18', 'torch==2.13.0', 'numpy==2.2.6', False, False),
    ('3.11', None, 'torch==2.13.0', 'numpy==2.2.6', True, False),
    ('3.10', None, 'torch==2.13.0', 'numpy<=2.2.6', True, True),
    ('3.12', None, 'torch==2.13.0', 'numpy<=2.2.6', True, False),
])
def test_all_else_is_the_locks(version, transformers, torch, numpy, own, backports):
    lines = compat.requirements(version, transformers)
    names = {re.split('[<=]=', line)[0] for line in lines}
    assert torch in lines and numpy in lines and 'torchvision' not in names
    assert names.issuperset(compat.PINNED) == own
    assert own or not names.intersection(compat.PINNED)
    assert names.issuperset(compat.BACKPORTS) == backports


def test_there_are_tests_of_each_kind():
    assert all(any((ROOT / 'tests').glob(tests)) for tests in compat.TESTS)


def test_a_python_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(compat, 'find_python', lambda version: None)
    assert compat.run_tests('python-3.10', '3.10', None).startswith(
        'no Python 3.10: uv python install 3.10')


def test_an_unknown_environment_is_refused(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['compat.py', 'python-2.7'])
    with pytest.raises(SystemExit, match='2'):
        compat.main()
    assert 'there is no python-2.7; there are transformers-oldest' in capsys.readouterr().err


# --- make test-vllm ---------------------------------------------------------------------------
def test_what_vllm_lacks_is_the_locks():
    """And what it brings is its own."""
    lines = vllm_env.missing({'torch': '2.13.0+cpu', 'onedl-mmengine': '0.10.12', 'jinja2': '3'})
    names = {vllm_env.normalized(line.split('==')[0]) for line in lines}
    assert names.isdisjoint({'torch', 'onedl-mmengine', 'jinja2'})
    assert {'onedl-mmdetection', 'peft', 'pytest', 'trl'} < names
    assert all(re.fullmatch(r'[\w.-]+==[\w.]+', line) for line in lines)


def test_vllm_is_of_the_tested_range():
    release = next(line for line in vllm_env.ASKED if line.startswith('vllm')).split('==')[1]
    check_version(release, 'in make test-vllm')
    first, end = TESTED_VLLM
    for page in ('docs/engines.md', 'docs/dependencies.md'):
        text = (ROOT / page).read_text().replace(' ', '')
        assert f'vllm>={first},<{end}' in text, page
