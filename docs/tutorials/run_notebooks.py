"""Runs the notebooks of this folder and writes their outputs back: ``make notebooks``.

    python docs/tutorials/run_notebooks.py                  # all, about ten minutes on two cores
    python docs/tutorials/run_notebooks.py first_outline    # one

A notebook is its own source: edit its cells in Jupyter or in a text editor, then run this. Each
one runs in a fresh folder, which is removed. The cell tagged ``install`` is not run. The cell
tagged ``parameters`` holds the numbers that decide how long a run takes; tests replace them.
"""
import argparse
import ast
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: seconds that one cell may take
LIMIT = 3600


def read(name: str) -> nbformat.NotebookNode:
    """The notebook ``name`` of this folder."""
    return nbformat.read(HERE / f'{name}.ipynb', as_version=4)


def tagged(notebook: nbformat.NotebookNode, tag: str) -> nbformat.NotebookNode:
    """The one cell that has a tag."""
    cell, = (cell for cell in notebook.cells if tag in cell.metadata.get('tags', ()))
    return cell


def with_parameters(notebook: nbformat.NotebookNode, values: Mapping) -> None:
    """Give names of the cell ``parameters`` other values.

    Raises:
        ValueError: the cell does not set such a name.
    """
    cell = tagged(notebook, 'parameters')
    known = [node.id for node in ast.walk(ast.parse(cell.source))
             if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]
    if unknown := sorted(set(values) - set(known)):
        raise ValueError(f'no parameters of this notebook: {unknown}; it has {known}')
    cell.source += ''.join(f'\n{name} = {value!r}' for name, value in values.items())


def run(notebook: nbformat.NotebookNode, folder: Path, limit: int = LIMIT) -> None:
    """Run a notebook in ``folder`` with this Python; its outputs replace those that it had.
    Standard error is left out of them: progress bars, and warnings that name paths.

    Args:
        limit: seconds that one cell may take.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
        nbclient.exceptions.CellTimeoutError: a cell took longer.
    """
    # of no user: neither kernels nor profiles of another Python
    own = {name: str(folder / '.jupyter') for name in
           ('JUPYTER_CONFIG_DIR', 'JUPYTER_DATA_DIR', 'JUPYTER_RUNTIME_DIR', 'IPYTHONDIR')}
    environment = {**os.environ, **own, 'TQDM_DISABLE': '1', 'HF_HUB_OFFLINE': '1',
                   'PATH': _joined(os.path.dirname(sys.executable), os.environ['PATH']),
                   'PYTHONPATH': _joined(ROOT, os.environ.get('PYTHONPATH'))}
    client = NotebookClient(notebook, timeout=limit, kernel_name='python3',
                            resources=dict(metadata=dict(path=str(folder))),
                            skip_cells_with_tag='install', coalesce_streams=True,
                            record_timing=False, store_widget_state=False)
    client.execute(env=environment)
    for cell in notebook.cells:
        if cell.cell_type == 'code':
            cell.outputs = [one for one in cell.outputs if one.get('name') != 'stderr']


def _joined(*paths: object) -> str:
    return os.pathsep.join(str(path) for path in paths if path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = sorted(path.stem for path in HERE.glob('*.ipynb'))
    parser.add_argument('names', nargs='*', metavar='NAME',
                        help=f'of {", ".join(names)}; all unless told')
    asked = parser.parse_args().names or names
    if unknown := sorted(set(asked) - set(names)):
        parser.error(f'no notebook {", ".join(unknown)}; there are {", ".join(names)}')
    for name in asked:
        notebook = read(name)
        with tempfile.TemporaryDirectory(prefix='tutorial-') as folder:
            run(notebook, Path(folder))
        nbformat.write(notebook, HERE / f'{name}.ipynb')
        print(f'{name}: {(HERE / f"{name}.ipynb").stat().st_size // 1024} kB')


if __name__ == '__main__':
    main()
