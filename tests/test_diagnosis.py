"""``simpleseg doctor``: what is said of made-up machines, and that this one is read."""
import json
import subprocess
import sys
from dataclasses import replace

import pytest

from simpleseg_mm import __version__, machine
from simpleseg_mm.diagnosis import (ABILITIES, FLAVOURS, Gpu, Machine, diagnose, what_first,
                                    what_works)

ONEDL = dict.fromkeys(FLAVOURS['onedl'], '1.0')
UPSTREAM = dict.fromkeys(FLAVOURS['openmmlab'], '1.0')
#: a machine without a GPU on which all that needs none works
PLAIN = Machine(python=(3, 11, 7), version='0.1.0', home='/env/simpleseg_mm', installed=['0.1.0'],
                owner='/env/simpleseg_mm', packages=dict(ONEDL, torch='2.13.0'), cores=4,
                memory=16.0, disk=100.0, data=['data/refshapes'])
GPU = replace(PLAIN, gpus=[Gpu('RTX 4090', 23.6, 23.0)], torch_cuda='12.8', driver=True)
NANO, SERVER, LORA_3B, QLORA_7B, RELEASED, LORA_7B, WHOLE_7B = (name for name, _, _ in ABILITIES)


def of(found, name):
    return next(finding for finding in found if finding.name == name)


def test_a_plain_machine_has_ten_lines_and_no_fault():
    found = diagnose(PLAIN)
    assert [(finding.name, finding.state) for finding in found] == [
        ('Python', 'ok'), ('simpleseg_mm', 'ok'), ('requirements', 'ok'), ('OpenMMLab', 'ok'),
        ('GPU', 'note'), ('memory', 'ok'), ('disk', 'ok'), ('hub', 'ok'), ('weights', 'ok'),
        ('data', 'ok')]
    assert all('\n' not in f'{finding.said}{finding.do}' for finding in found)
    assert what_first(PLAIN).startswith('simpleseg segment simpleseg_mm://example.jpg')


@pytest.mark.parametrize('change, name, state, said, do', [
    (dict(python=(3, 9, 18)), 'Python', 'bad', '3.9.18; the package is for 3.10 up to', '3.11'),
    (dict(python=(3, 13, 0)), 'Python', 'bad', 'not with, 3.13', 'environment of Python 3.11'),
    (dict(python=(3, 10, 0)), 'Python', 'ok', '3.10.0', None),
    (dict(python=(3, 12, 99)), 'Python', 'ok', '3.12.99', None),
    (dict(complete=False), 'simpleseg_mm', 'bad', 'without its configs', 'pip uninstall'),
    (dict(installed=['0.1.0', '0.0.9']), 'simpleseg_mm', 'bad', 'installed 2 times: 0.1.0, 0.0.9',
     'until there is none'),
    # a wheel's package, run in a folder that holds the source
    (dict(owner='/other/simpleseg_mm'), 'simpleseg_mm', 'note', 'not the installed one in /other',
     'PYTHONPATH'),
    (dict(installed=['0.0.9']), 'simpleseg_mm', 'note', 'installed as 0.0.9', 'install it again'),
    (dict(installed=[], owner=None), 'simpleseg_mm', 'ok', '0.1.0 in', None),
    (dict(unmet={'torch>=2.9': '2.6.0', 'peft>=0.17': None}), 'requirements', 'bad',
     'torch>=2.9 (2.6.0), peft>=0.17 (not there)', "pip install 'torch>=2.9' 'peft>=0.17'"),
    (dict(faults={'cv2': 'ImportError: libGL.so.1'}), 'requirements', 'bad', 'libGL',
     'pip install opencv-python-headless'),
    (dict(faults={'torchvision': 'RuntimeError: operator torchvision::nms'}), 'requirements',
     'bad', 'torchvision cannot be imported', 'pip uninstall torchvision'),
    (dict(faults={'numpy': 'it ended Python with status -11'}), 'requirements', 'bad', '-11',
     'pip install --force-reinstall numpy'),
    (dict(packages=dict(torch='2.13.0')), 'OpenMMLab', 'bad', 'none', 'simpleseg-mm[onedl]'),
    (dict(packages=dict(torch='2.13.0', **ONEDL, mmengine='0.10.7')), 'OpenMMLab', 'bad',
     'two families', 'pip uninstall onedl-mmengine'),
    (dict(packages={'torch': '2.13.0', 'mmengine': '0.10.7'}), 'OpenMMLab', 'bad',
     'mmengine 0.10.7 alone', 'simpleseg-mm[openmmlab]'),
    (dict(packages=dict(torch='2.13.0', **UPSTREAM)), 'OpenMMLab', 'note', 'cannot resume',
     'simpleseg-mm[onedl]'),
    (dict(faults={'mmcv': 'ImportError: _ext'}), 'OpenMMLab', 'bad', 'mmcv cannot be imported',
     "--force-reinstall 'simpleseg-mm[onedl]'"),
    (dict(packages=ONEDL), 'GPU', 'bad', 'torch: it is not installed', 'pip install torch'),
    (dict(faults={'torch': 'OSError: libcudart'}), 'GPU', 'bad', 'torch 2.13.0: OSError',
     'pytorch.org'),
    # what imports torch has its fault, too
    (dict(faults={'torch': 'OSError: libcudart', 'mmcv': 'OSError: libcudart',
                  'transformers': 'OSError: libcudart'}), 'GPU', 'bad', 'torch 2.13.0: OSError',
     'pytorch.org'),
    (dict(driver=True), 'GPU', 'note', 'torch 2.13.0 is a build for CPUs', 'pytorch.org'),
    (dict(driver=True, torch_cuda='12.8'), 'GPU', 'note', 'with CUDA 12.8 does not see it',
     'CUDA_VISIBLE_DEVICES'),
    (dict(memory=3.9), 'memory', 'note', '3.9 GiB free', 'end other programs'),
    (dict(memory=None), 'memory', 'ok', 'not known', None),
    (dict(disk=2.0), 'disk', 'note', '2.0 GiB free', '--work-dir'),
    (dict(disk=0.04), 'disk', 'bad', '0.0 GiB free', 'free a few gigabytes'),
    (dict(disk=15.7), 'disk', 'note', '16 GiB free', '--work-dir'),
    (dict(writable=False), 'disk', 'bad', 'cannot be written to', 'cd to a folder of your own'),
    (dict(cache='/root/.cache'), 'weights', 'note', '/root/.cache, where fetched', 'HF_HOME'),
    (dict(offline=True), 'hub', 'note', 'HF_HUB_OFFLINE', 'unset'),
    (dict(hub='it does not answer'), 'hub', 'note', 'it does not answer; what is', 'OFFLINE=1'),
    (dict(weights=['Qwen/Qwen2.5-VL-7B-Instruct']), 'weights', 'ok',
     'nano (packaged), Qwen/Qwen2.5-VL-7B-Instruct', None),
    (dict(data=[]), 'data', 'note', 'none', 'simpleseg convert refshapes'),
])
def test_each_finding(change, name, state, said, do):
    finding = of(diagnose(replace(PLAIN, **change)), name)
    assert finding.state == state and said in finding.said
    assert do in finding.do if do else finding.do is None
    others = [f for f in diagnose(replace(PLAIN, **change)) if f.name != name]
    assert all(finding.state != 'bad' for finding in others)
    if state == 'bad':  # it is what is mended first, and nothing works before
        assert what_first(replace(PLAIN, **change)) == finding.do
        assert what_works(replace(PLAIN, **change)) == ([], [name for name, _, _ in ABILITIES])


@pytest.mark.parametrize('total, works', [
    ([], [NANO, SERVER]), ([8.0], [NANO, SERVER]), ([15.6], [NANO, SERVER, LORA_3B, QLORA_7B]),
    ([23.6], [NANO, SERVER, LORA_3B, QLORA_7B, RELEASED, LORA_7B]),
    ([79.2], [NANO, SERVER, LORA_3B, QLORA_7B, RELEASED, LORA_7B, WHOLE_7B]),
    ([8.0, 23.6], [NANO, SERVER, LORA_3B, QLORA_7B, RELEASED, LORA_7B]),  # not the sum of both
])
def test_what_works_is_by_the_largest_gpu(total, works):
    there = replace(GPU, gpus=[Gpu('a GPU', one, one) for one in total])
    found, lacking = what_works(there)
    assert found == works and len(found) + len(lacking) == len(ABILITIES)
    assert all('(a GPU of ' in line for line in lacking)


def test_the_first_fault_is_mended_first():
    broken = replace(PLAIN, python=(3, 9, 1), packages={}, unmet={'torch>=2.9': None})
    assert 'Python 3.11' in what_first(broken)
    broken = replace(broken, python=(3, 11, 1))
    assert what_first(broken).startswith("pip install 'simpleseg-mm[onedl]'")  # all at once
    assert "'torch>=2.9'" in what_first(replace(broken, packages=ONEDL))


# --- reading --------------------------------------------------------------------------------
def test_a_library_that_crashes_is_a_fault_of_its_own(tmp_path, monkeypatch):
    for name, code in dict(raises='raise RuntimeError("no\\nline")',
                           leaves='import os; os._exit(7)', prints='print("[not json")',
                           hangs='import time; time.sleep(60)',
                           ends='raise SystemExit(3)').items():
        (tmp_path / f'{name}.py').write_text(code)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    read = machine._imports
    assert read(['json', 'prints'], 30) == ({}, None, [])
    assert read(['raises', 'json'], 30)[0] == {'raises': 'RuntimeError: no line'}
    assert read(['ends', 'nowhere'], 30)[0] == {
        'ends': 'SystemExit: 3', 'nowhere': "ModuleNotFoundError: No module named 'nowhere'"}
    assert read(['raises', 'leaves', 'json'], 30)[0] == {
        'raises': 'RuntimeError: no line', 'leaves': 'it ended Python with status 7'}
    assert read(['hangs'], 1)[0] == {'hangs': 'not done after 1 s'}


@pytest.mark.parametrize('lines, unmet', [
    ([], {}), (['numpy', 'pillow>=1'], {}), (['numpy<1'], {'numpy<1': '2.2.6'}),
    (['nothing-of_this>=1'], {'nothing-of_this>=1': None}),
    (['nothing; extra == "test"', 'nothing; python_version < "3"'], {}),
    (['Pillow>=1', 'PyCocoTools'], {}), (['torch>=2.9'], {}),  # 2.13.0+cpu
])
def test_requirements_are_those_of_the_installation(monkeypatch, lines, unmet):
    monkeypatch.setattr(machine.metadata, 'requires', lambda name: lines)
    there = {'numpy': '2.2.6', 'pillow': '13', 'pycocotools': '2', 'torch': '2.13.0+cpu'}
    assert machine._unmet(there) == unmet


@pytest.mark.parametrize('address, said', [
    ('http://127.0.0.1:9', 'refused'), ('no address', 'unknown url type'), ('http://[', '')])
def test_a_hub_that_does_not_answer_is_said(monkeypatch, address, said):
    monkeypatch.setenv('HF_ENDPOINT', address)
    answer = machine._ask_hub(2)
    assert answer is not None and said in answer.lower() and '\n' not in answer


def test_cached_weights_are_those_with_files(tmp_path, monkeypatch):
    for name in ('models--a--b', 'models--a--tokenizer', 'datasets--a--c'):
        folder = tmp_path / name / 'snapshots/1'
        folder.mkdir(parents=True)
        (folder / 'config.json').write_text('{}')
    (tmp_path / 'models--a--b/snapshots/1/model.safetensors').write_text('')
    monkeypatch.setenv('HF_HUB_CACHE', str(tmp_path))
    assert machine._cached() == ['a/b']


def test_what_metadata_does_not_say(tmp_path, monkeypatch):
    """Folders that an aborted installation left, versions that are none, a source tree."""
    for name, text in (('a-1.dist-info', ''), ('b-1.dist-info', 'Name: b\n'),
                       ('c-1.dist-info', 'Name: c\nVersion: odd version\n'),
                       ('d-1.dist-info', None)):
        (tmp_path / name).mkdir()
        if text is not None:
            (tmp_path / name / 'METADATA').write_text(text)
    monkeypatch.setattr(sys, 'path', [str(tmp_path)])
    assert machine._packages() == {'c': 'odd version'}
    monkeypatch.setattr(machine.metadata, 'requires', lambda name: ['c>=1'])
    assert machine._unmet(machine._packages()) == {'c>=1': 'odd version'}

    def none(name):
        raise machine.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(machine.metadata, 'requires', none)
    assert machine._unmet({'torch': '2.5.0'})['torch>=2.9'] == '2.5.0'  # of setup.cfg


@pytest.mark.parametrize('variables, folder', [
    ({'HF_HUB_CACHE': '/a'}, '/a'), ({'HF_HOME': '/b'}, '/b/hub'),
    ({'XDG_CACHE_HOME': '/c'}, '/c/huggingface/hub'), ({}, '/home/x/.cache/huggingface/hub')])
def test_a_cache_that_cannot_be_written_to(tmp_path, monkeypatch, variables, folder):
    for name in ('HF_HUB_CACHE', 'HF_HOME', 'XDG_CACHE_HOME'):
        monkeypatch.delenv(name, raising=False)
    for name, value in {'HOME': '/home/x', **variables}.items():
        monkeypatch.setenv(name, value)
    assert str(machine._cache()) == folder
    assert machine._locked(tmp_path / 'a/b') is None
    (tmp_path / 'file').write_text('')
    assert machine._locked(tmp_path / 'file/b') == str(tmp_path / 'file/b')
    monkeypatch.setattr(machine.os, 'access', lambda place, mode: False)
    assert machine._locked(tmp_path / 'a') == str(tmp_path / 'a')


def test_a_python_that_is_too_old_is_told():
    code = ("import runpy, sys; sys.version_info = (3, 9, 1, 'final', 0); "
            "runpy.run_module('simpleseg_mm', run_name='__main__')")
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 1 and done.stderr.startswith('simpleseg: Python 3.9 is too old')


def test_this_machine(tmp_path):
    """What the command says is what JSON says."""
    done = subprocess.run([sys.executable, '-m', 'simpleseg_mm', 'doctor', '--json'], cwd=tmp_path,
                          capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, '')
    assert [finding['name'] for finding in report['findings']] == [
        finding.name for finding in diagnose(PLAIN)]
    assert of_json(report, 'Python')['said'] == '.'.join(map(str, sys.version_info[:3]))
    assert __version__ in of_json(report, 'simpleseg_mm')['said']
    assert NANO in report['works'] and report['first']


def of_json(report, name):
    return next(finding for finding in report['findings'] if finding['name'] == name)
