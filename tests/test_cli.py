"""The command ``simpleseg``: configs by name, scripts of tools/ from any folder."""
import re
import subprocess
import sys
from pathlib import Path

import pytest

from simpleseg_mm import cli
from simpleseg_mm.config import config_root, find_config, read_config

ROOT = Path(__file__).resolve().parents[1]
SFT = ROOT / 'configs/simpleseg/nano_sft_refshapes.py'


# --- configs by name ------------------------------------------------------------------------
@pytest.mark.parametrize('name, found', [
    ('nano_sft_refshapes', 'configs/simpleseg/nano_sft_refshapes.py'),
    ('nano_sft_refshapes.py', 'configs/simpleseg/nano_sft_refshapes.py'),
    ('simpleseg/nano_sft_refshapes', 'configs/simpleseg/nano_sft_refshapes.py'),
    ('configs/simpleseg/nano_sft_refshapes.py', 'configs/simpleseg/nano_sft_refshapes.py'),
    ('gspo_group-4', 'configs/simpleseg/ablations/gspo_group-4.py'),
    ('ablations/gspo_group-4.py', 'configs/simpleseg/ablations/gspo_group-4.py'),
    ('refshapes_oracle', 'configs/annotation/refshapes_oracle.py'),
    ('_base_/datasets/refshapes', 'configs/_base_/datasets/refshapes.py'),
    ('configs/_base_/datasets/refshapes.py', 'configs/_base_/datasets/refshapes.py'),
])
def test_a_config_has_a_name_from_any_folder(tmp_path, monkeypatch, name, found):
    monkeypatch.chdir(tmp_path)
    assert find_config(name) == str(ROOT / found)


@pytest.mark.parametrize('name, error, said', [
    ('nano_sft_refshape', FileNotFoundError, 'did you mean nano_sft_refshapes'),
    ('sft_refshapes', FileNotFoundError, 'no config sft_refshapes'),  # the end of a name is none
    ('refcoco', FileNotFoundError, 'no config refcoco'),  # of _base_, which is no config
    ('zzz', FileNotFoundError, 'no config zzz: give a path, or a name of'),
    ('', FileNotFoundError, 'no config '), ('/', ValueError, 'is a folder'),
    ('mine', ValueError, 'mine is a folder, not a config: give one of its files: a.py'),
    ('elsewhere/nano_sft_refshapes.py', FileNotFoundError, 'did you mean nano_sft_refshapes'),
    ('min.py', FileNotFoundError, r'did you mean mine\.py'),  # of the reader's own
])
def test_what_is_no_name_is_said(tmp_path, monkeypatch, name, error, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine').mkdir()
    (tmp_path / 'mine/a.py').write_text('')
    (tmp_path / 'mine.py').write_text('')
    with pytest.raises(error, match=said):
        find_config(name)


def test_a_file_of_ones_own_comes_before_a_name_and_a_name_before_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'nano_sft_refshapes').mkdir()  # a run's folder may have it
    assert find_config('nano_sft_refshapes') == str(SFT)
    (tmp_path / 'nano_sft_refshapes.py').write_text('mine = 1')
    assert read_config('nano_sft_refshapes.py').mine == 1


def test_each_config_is_found_by_its_name(tmp_path, monkeypatch):
    """No two have one name."""
    monkeypatch.chdir(tmp_path)
    paths = [path for path in (config_root() / 'configs').rglob('*.py')
             if '_base_' not in path.parts]
    assert len(paths) > 80 and all(find_config(path.stem) == str(path) for path in paths)


# --- scripts of tools/ ----------------------------------------------------------------------
def test_each_script_is_there_and_is_told_its_name(tmp_path):
    for script, _ in (*cli.SCRIPTS.values(), *cli.CONVERTERS.values()):
        assert (ROOT / 'tools' / script).is_file(), script
    done = subprocess.run([sys.executable, '-m', 'simpleseg_mm', 'convert', 'own-data', '--help'],
                          cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and 'usage: simpleseg convert own-data' in done.stdout
    done = subprocess.run([sys.executable, '-m', 'simpleseg_mm', 'train', 'nano_sft_refshape'],
                          cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, '')
    said, = done.stdout.splitlines()
    assert said.startswith('ERROR: no config nano_sft_refshape: did you mean nano_sft_refshapes')
    assert not any(tmp_path.iterdir())


def test_help_names_every_subcommand(capsys):
    with pytest.raises(SystemExit, match='0'):
        cli.main(['--help'])
    said = capsys.readouterr().out
    assert all(re.search(rf'^    {name}\s', said, re.M)
               for name in (*cli.COMMANDS, *cli.SCRIPTS, 'convert'))
    with pytest.raises(SystemExit, match='0'):
        cli.main(['convert', '--help'])
    said = capsys.readouterr().out
    assert all(re.search(rf'^    {name}\s', said, re.M) for name in cli.CONVERTERS)


@pytest.mark.parametrize('argv, said', [
    ([], 'required: COMMAND'), (['convert'], 'required: WHAT'), (['trian'], "invalid choice"),
    (['convert', 'coco'], 'invalid choice'), (['train'], 'required: config'),
])
def test_wrong_words_are_told(argv, said, capsys):
    with pytest.raises(SystemExit, match='2'):
        cli.main(argv)
    assert said in capsys.readouterr().err


@pytest.mark.parametrize('name, said', [
    ('mmengine', "mmengine is not installed: pip install 'simpleseg-mm[onedl]'"),
    ('mmengine.config', "mmengine is not installed"),
    ('cv2', "cv2 is not installed: pip install 'simpleseg-mm' "), ('my_project', None)])
def test_a_library_that_is_missing_is_one_line(monkeypatch, capsys, name, said):
    def fail(argv):
        raise ModuleNotFoundError(f'No module named {name!r}', name=name)
    monkeypatch.setattr(cli, '_run_module', fail)
    if said is None:  # of the user's own
        with pytest.raises(ModuleNotFoundError):
            cli.main(['segment'])
        return
    assert cli.main(['segment']) == 2
    assert capsys.readouterr().err.startswith(f'simpleseg: {said}')


def test_an_installation_without_tools_is_told(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cli, '_PACKAGE', tmp_path / 'simpleseg_mm')
    assert cli.main(['train', 'x.py']) == 2
    assert 'has no tools/train.py' in capsys.readouterr().err
