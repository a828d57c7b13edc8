"""The tests that need the readers of other tools: ``python tests/readers_env.py [--folder F]``.

In an environment of its own, with requirements/lock-readers.txt on top of the other locks; all is
installed with --no-deps. Status 1 where tests fail or the environment cannot be had.
"""
import subprocess
import sys
from pathlib import Path

from own_environment import ROOT, run_tests_in

LOCKS = tuple(ROOT / 'requirements' / name
              for name in ('lock.txt', 'lock-test.txt', 'lock-readers.txt'))
TESTS = ('test_export_readers.py', 'test_tool_readers.py', 'test_export_sets.py',
         'test_integrations_supervision.py', 'test_serving_label_studio.py')
#: LabelMe's readers import its window's library, which they do not use
WINDOW = '''"""Stands in for PyQt5: any name is an empty class."""


def __getattr__(name):
    if name.startswith('__'):
        raise AttributeError(name)
    return type(name, (), {})
'''


def fill(inside: Path, pip: list, packages: Path) -> None:
    """Install what the tests need."""
    for lock in LOCKS:
        subprocess.run([*pip, '--no-deps', '-r', lock], check=True)
    subprocess.run([*pip, '--no-deps', '--no-build-isolation', '-e', ROOT], check=True)
    (packages / 'PyQt5').mkdir(exist_ok=True)
    for name in ('__init__', 'QtCore', 'QtGui', 'QtWidgets'):
        (packages / f'PyQt5/{name}.py').write_text(WINDOW)


if __name__ == '__main__':
    sys.exit(run_tests_in(ROOT / '.readers', __doc__, [f'tests/{name}' for name in TESTS],
                          ''.join(lock.read_text() for lock in LOCKS) + WINDOW, fill))
