"""The notebooks of docs/tutorials: what is committed is of one whole run, and each runs today.

They run as a reader runs them, with smaller numbers in the cell ``parameters``; a cell that is
added at the end holds what must be so.
"""
import json
import re
import runpy

import pytest
from doc_pages import ROOT
from test_docs_text import broken, links

import simpleseg_mm

FOLDER = ROOT / 'docs/tutorials'
NOTEBOOKS = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob('*.ipynb'))}
#: name -> its parameters here, and what is so at its end
CHECKS = {
    'first_outline': ({}, '''
orange = (picture[..., 0] > 180) & (picture[..., 2] < 90)
assert (answer.mask & orange).sum() / (answer.mask | orange).sum() > 0.8
assert doubtful.warnings and not answer.warnings
assert wrong.mask.any() and not wrong.says_nothing
'''),
    'own_photos': (dict(pictures=8, held_out=4, updates=2), '''
assert report['ok'] and report['train']['images'] == 8 and report['val']['images'] == 4
assert before.keys() == after.keys() and before['valid'] > 80 and before['gIoU'] > 5
assert [path.name for path in Path('work_dirs/nano_mine').glob('iter_*.pth')] == ['iter_2.pth']
assert answers[0].text == answers[1].text and answers[0].mask.any()
assert asked and all(path.startswith('my_photos') for path, _ in asked)
'''),
    'sft_to_rl': (dict(scenes=16, test_scenes=3, sft_updates=10, rollouts=1), '''
assert list(rows) == ['base', 'SFT', 'GSPO'] and set(rows['base'].values()) == {0}
assert len(group) == 16 and abs(sum(row['advantage'] for row in group)) < 0.01
assert Path('work_dirs/nano_sft_refshapes/iter_10.pth').is_file()
assert all(Path(f'curves_{stage}.jpg').stat().st_size > 5000 for stage in ('sft', 'gspo'))
'''),
}
SLOW = ('own_photos', 'sft_to_rl')
LIMIT, MEGABYTES = 300, 1.5  # seconds of a cell; all notebooks together


def cells(name, kind):
    return [cell for cell in NOTEBOOKS[name]['cells'] if cell['cell_type'] == kind]


def text_of(cell):
    return ''.join(cell['source'])


def tags_of(cell):
    return cell['metadata'].get('tags', [])


def test_every_notebook_is_run_here():
    assert set(CHECKS) == set(NOTEBOOKS)


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_the_outputs_are_of_one_whole_run(name):
    run = [cell for cell in cells(name, 'code') if 'install' not in tags_of(cell)]
    assert [cell['execution_count'] for cell in run] == list(range(1, len(run) + 1))
    outputs = [output for cell in run for output in cell['outputs']]
    assert not {'error'} & {output['output_type'] for output in outputs}
    assert any(kind.startswith('image/') for output in outputs
               for kind in output.get('data', {}))
    said = json.dumps([{key: value for key, value in output.get('data', {}).items()
                        if not key.startswith('image/')} or output.get('text')
                       for output in outputs])
    assert not re.search(r'(?<![\w.:/])/(tmp|home|root|work|usr)/', said), 'a path of a machine'


def test_all_notebooks_are_small():
    assert sum(path.stat().st_size for path in FOLDER.glob('*.ipynb')) < MEGABYTES * 1e6


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_a_notebook_starts_with_an_installation_and_ends_with_what_is_next(name):
    first, second, *_ = cells(name, 'code')
    assert 'install' in tags_of(first) and 'parameters' in tags_of(second)
    assert text_of(first) == text_of(cells('first_outline', 'code')[0])
    assert f'simpleseg_mm-{simpleseg_mm.__version__}-py3-none-any.whl[onedl]' in text_of(first)
    _, heading, after = text_of(NOTEBOOKS[name]['cells'][-1]).rpartition('## What next\n')
    assert heading and after.count('](') > 1


@pytest.mark.parametrize('name', NOTEBOOKS)
def test_the_links_of_a_notebook_lead_somewhere(name):
    targets = links('\n\n'.join(map(text_of, cells(name, 'markdown'))))
    assert targets
    assert not list(filter(None, (broken(FOLDER / f'{name}.ipynb', one) for one in targets)))


@pytest.mark.parametrize('name', [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in NOTEBOOKS])
def test_a_notebook_runs(name, tmp_path):
    for package in ('nbclient', 'ipykernel'):
        pytest.importorskip(package, reason=f'no {package}: see requirements/lock-test.txt')
    tools = runpy.run_path(str(FOLDER / 'run_notebooks.py'))
    values, check = CHECKS[name]
    notebook = tools['read'](name)
    tools['with_parameters'](notebook, values)
    notebook.cells.append(tools['nbformat'].v4.new_code_cell(check))
    tools['run'](notebook, tmp_path, LIMIT)


@pytest.mark.parametrize('values, said', [
    (dict(questoin='the ring'), r"no parameters of this notebook: \['questoin'\]; it has "),
    (dict(question='a', other=1), r"\['other'\]"),
])
def test_a_parameter_that_a_notebook_lacks_is_named(values, said):
    pytest.importorskip('nbclient')
    tools = runpy.run_path(str(FOLDER / 'run_notebooks.py'))
    with pytest.raises(ValueError, match=said):
        tools['with_parameters'](tools['read']('first_outline'), values)
