"""Kills around validations, and full disks: the best checkpoint is whole and right."""
import json
import shutil
from pathlib import Path

import kills
import pytest

from simpleseg_mm.engine.checkpoint_file import fault_of


@pytest.fixture(scope='module')
def undisturbed(tmp_path_factory):
    """The config, an undisturbed run's outcome, and its number of points."""
    folder = tmp_path_factory.mktemp('kills')
    config = folder / 'toy.py'
    config.write_text(kills.CONFIG)
    assert kills.in_a_child(kills.run, config, folder / 'whole', None, folder / 'count') == 0
    return config, kills.outcome(folder / 'whole'), json.loads((folder / 'count').read_text())


def kill_and_resume(undisturbed, folder, at):
    config, right, _ = undisturbed
    assert kills.in_a_child(kills.run, config, folder, at) == -9
    bests = list(folder.glob('best_*.pth'))
    for path in [*bests, *folder.glob('iter_*.pth')]:
        assert fault_of(str(path)) is None, (at, path)
    pointer = folder / 'best_checkpoint'
    assert not pointer.exists() or Path(pointer.read_text()).exists(), at
    assert kills.in_a_child(kills.run, config, folder) == 0, at
    assert kills.same(kills.outcome(folder), right), (at, kills.outcome(folder)['names'])
    return len(bests)


def test_the_undisturbed_run(undisturbed):
    _, right, points = undisturbed
    assert right['names'] == ['best_checkpoint', right['best'], 'iter_6.pth', 'iter_8.pth',
                              'last_checkpoint']
    assert right['ids'] == [6, 8] and right['iter'] == 8 and points > 90


@pytest.mark.parametrize('part', range(3))
def test_some_kills(undisturbed, tmp_path, part):
    points = range(1, undisturbed[2] + 1)
    kill_and_resume(undisturbed, tmp_path, points[(part + 1) * len(points) // 4])


@pytest.mark.slow
def test_a_kill_at_every_point(undisturbed, tmp_path):
    """The best checkpoint is never away once there was one, and never wrong in the end."""
    had = [kill_and_resume(undisturbed, tmp_path / str(at), at)
           for at in range(1, undisturbed[2] + 1)]
    assert min(had[had.index(1):]) >= 1


@pytest.mark.slow
def test_two_kills_in_one_run(undisturbed, tmp_path):
    config, right, points = undisturbed
    for first in range(points // 3, points, 9):
        folder = tmp_path / str(first)
        assert kills.in_a_child(kills.run, config, folder, first) == -9
        second = kills.in_a_child(kills.run, config, folder, 12)
        assert second in (0, -9)
        assert kills.in_a_child(kills.run, config, folder) == 0
        assert kills.same(kills.outcome(folder), right), first


def test_a_full_disk_is_one_line_and_loses_nothing(undisturbed, tmp_path, capfd):
    """The first checkpoint that is written after the resume meets a full disk."""
    config, right, points = undisturbed
    assert kills.in_a_child(kills.run, config, tmp_path, points // 2) == -9
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name.endswith('.pth')}
    assert kills.in_a_child(full_disk, config, tmp_path) == 2
    line, = [line for line in capfd.readouterr().err.splitlines() if line.startswith('ERROR')]
    assert 'pth was not written: No space left on device' in line and '--resume' in line
    after = {p.name: p.read_bytes() for p in tmp_path.iterdir() if p.name.endswith('.pth')}
    assert after and all(before[name] == content for name, content in after.items())
    assert Path((tmp_path / 'best_checkpoint').read_text()).name in after
    assert not list(tmp_path.glob('.*'))
    assert kills.in_a_child(kills.run, config, tmp_path) == 0
    assert kills.same(kills.outcome(tmp_path), right)


def full_disk(config, work_dir):
    import contextlib
    import os
    import sys

    from simpleseg_mm.engine import launch
    try:
        with contextlib.redirect_stdout(sys.stderr), launch.one_line_errors():
            kills.run(config, work_dir, full=True)
    except SystemExit as stop:
        os._exit(stop.code)


@pytest.mark.parametrize('harm', ['removed', 'damaged'])
def test_a_lost_best_checkpoint_is_made_again(undisturbed, tmp_path, harm):
    config, right, points = undisturbed
    kills.in_a_child(kills.run, config, tmp_path, points - 1)
    best, = tmp_path.glob(right['best'])
    best.unlink() if harm == 'removed' else best.write_bytes(b'PK')
    assert kills.in_a_child(kills.run, config, tmp_path) == 0
    now = Path((tmp_path / 'best_checkpoint').read_text())
    assert fault_of(str(now)) is None and now.name == 'best_res_cIoU_iter_8.pth'


def test_a_moved_run_goes_on(undisturbed, tmp_path):
    config, right, points = undisturbed
    kills.in_a_child(kills.run, config, tmp_path / 'a', points // 2)
    shutil.move(tmp_path / 'a', tmp_path / 'b')
    assert kills.in_a_child(kills.run, config, tmp_path / 'b') == 0
    assert kills.same(kills.outcome(tmp_path / 'b'), right)
