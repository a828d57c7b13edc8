"""What is published is whole: the source archive's list, what mim reads, the model index."""
import fnmatch
import runpy
from pathlib import Path

import pytest
import release
import setuptools
import yaml

ROOT = Path(__file__).resolve().parents[1]


def files(folder):
    return {path.relative_to(ROOT / folder).as_posix() for path in (ROOT / folder).rglob('*')
            if path.is_file() and '__pycache__' not in path.parts}


@pytest.mark.parametrize('folder', ['configs', 'tools', 'simpleseg_mm', 'demo', 'docs'])
def test_the_source_archive_holds_every_file(folder):
    """The wheel is built from it: what it lacks, an installation lacks."""
    listed = {('simpleseg_mm', '*.py')}  # of packages, setuptools takes these by itself
    for line in (ROOT / 'MANIFEST.in').read_text().splitlines():
        command, *words = line.split()
        if command == 'recursive-include':
            listed |= {(words[0], pattern) for pattern in words[1:]}
    missing = {name for name in files(folder) if not any(
        f'{folder}/{name}'.startswith(f'{place}/') and fnmatch.fnmatch(Path(name).name, pattern)
        for place, pattern in listed)}
    missing = {name for name in missing if not name.startswith(('_build/', '_api/'))}  # make docs
    assert not missing


def test_a_build_holds_what_both_mims_read(tmp_path, monkeypatch):
    given = {}
    monkeypatch.setattr(setuptools, 'setup', lambda **settings: given.update(settings))
    names = runpy.run_path(str(ROOT / 'setup.py'))
    command = given['cmdclass']['build_py'](setuptools.Distribution(dict(name='x')))
    command.build_lib = str(tmp_path)
    command.ensure_finalized()
    for stale in ('simpleseg_mm/.mim/configs', 'simpleseg_mm/.mim/tools'):
        (tmp_path / stale).mkdir(parents=True)
        (tmp_path / stale / 'removed.py').write_text('')  # of an earlier build
    command.run()
    expected = {'model-index.yml', *(f'{folder}/{name}' for folder in ('configs', 'tools', 'demo')
                                     for name in files(folder))}
    for package in ('simpleseg_mm', names['FIRST']):
        place = tmp_path / package / '.mim'
        assert {path.relative_to(place).as_posix() for path in place.rglob('*')
                if path.is_file()} == expected
    # pip sorts the entries of RECORD, of which onedl-mim takes the first
    assert min('../../../bin/simpleseg', 'simpleseg_mm/cli.py', f"{names['FIRST']}/.mim/tools/x",
               'simpleseg_mm-0.1.0.dist-info/RECORD').startswith(names['FIRST'])


def test_the_model_index_is_one_that_mim_downloads():
    """It fetches what stands behind the last slash of ``Weights``; configs have none to fetch."""
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())
    models = [model for name in index['Import']
              for model in yaml.safe_load((ROOT / name).read_text())['Models']]
    assert len(models) > 30 and len({model['Name'] for model in models}) == len(models)
    for model in models:
        assert (ROOT / model['Config']).stem == model['Name']
        assert (ROOT / model['Config']).is_file() and model['Weights'].endswith('/')


def test_a_release_is_tried_on_each_python():
    assert release.pythons() == ['3.10', '3.11', '3.12'] == list(release.MIMS)
    assert {names[0].partition('==')[0] for names in release.MIMS.values()} == {
        'openmim', 'onedl-mim'}


def test_a_step_that_fails_or_says_something_else_ends_the_release(tmp_path):
    assert release.run('echo', 'all is well', cwd=tmp_path, said='well') == 'all is well\n'
    with pytest.raises(RuntimeError, match="'ill' expected"):
        release.run('echo', 'all is well', cwd=tmp_path, said='ill')
    with pytest.raises(RuntimeError, match='status 1'):
        release.run('false', cwd=tmp_path)
