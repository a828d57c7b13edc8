"""Several processes, Ray, and what is killed in mid-run: the shards are those of one quiet run."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from annotation_standin import folder_of, jpeg, photos, run, shards, simple

from simpleseg_mm.annotation.stages import annotate
from simpleseg_mm.annotation.stage import Journal
from simpleseg_mm.annotation.tar import pack

ROOT = Path(__file__).resolve().parents[1]
NO_RAY = "needs Ray Data: pip install 'simpleseg-mm[annotate-ray]'"


@pytest.fixture(scope='module')
def ray_cluster():
    """A local cluster of two workers."""
    ray = pytest.importorskip('ray', reason=NO_RAY)
    ray.init(num_cpus=4, object_store_memory=200_000_000, include_dashboard=False,
             log_to_driver=False, logging_level='error',
             runtime_env=dict(env_vars=dict(PYTHONPATH=f'{ROOT}:{ROOT / "tests"}')))
    yield
    ray.shutdown()


def ray_run(cfg, work_dir) -> dict:
    from simpleseg_mm.annotation.ray_engine import RayEngine
    return annotate(cfg, str(work_dir), RayEngine(readers=2)).as_dict()


@pytest.fixture(scope='module')
def quiet(tmp_path_factory):
    """Images and the shards of an undisturbed run in one process."""
    root = tmp_path_factory.mktemp('quiet')
    images = folder_of(root / 'images', 12)
    reader = dict(type='ReadFolder', root=str(images), shard_size=4)
    counts = run(simple(reader), root / 'run')
    return reader, shards(root / 'run'), counts['counts']


def test_several_processes(quiet, tmp_path):
    reader, expected, counts = quiet
    found = run(simple(reader), tmp_path, workers=2)
    assert shards(tmp_path) == expected and found['counts'] == counts


def test_a_worker_killed_once(quiet, tmp_path):
    reader, expected, counts = quiet
    once = tmp_path / 'died'
    cfg = simple(reader, die_at='005', once=str(once))
    found = run(cfg, tmp_path / 'run', workers=2)
    assert once.exists() and found['quarantined'] == 0
    assert shards(tmp_path / 'run') == expected and found['counts'] == counts
    assert not list((tmp_path / 'run/in_work').iterdir())


@pytest.mark.slow
def test_an_image_that_always_kills_its_process_is_quarantined(quiet, tmp_path):
    reader, expected, _ = quiet
    found = run(simple(reader, die_at='005'), tmp_path, workers=2)
    assert found['counts']['images']['dropped'] == {'detect: killed its process': 1}
    mine = shards(tmp_path)
    assert [name for name in expected if mine[name] != expected[name]] == [
        'images-000001.npy', 'images-000001.tar']
    assert (tmp_path / 'quarantine/images-000001.tar').exists()


@pytest.mark.parametrize('leftover', [{}, dict(driver='another', deaths={'detect/0': 9}), [], 3])
def test_deaths_of_another_driver_accuse_nobody(tmp_path, leftover):
    (tmp_path / 'in_work').mkdir()
    (tmp_path / 'in_work/c.json').write_text(json.dumps(leftover))
    assert Journal(tmp_path, 'c', 'mine').deaths('detect/0') == 0
    (tmp_path / 'in_work/c.json').write_bytes(b'{"dri')
    Journal(tmp_path, 'c', 'mine').enter('detect/0')
    assert Journal(tmp_path, 'c', 'mine').deaths('detect/0') == 1
    Journal(tmp_path, 'c', 'other').enter('detect/0')
    assert Journal(tmp_path, 'c', 'mine').deaths('detect/0') == 0
    Journal(tmp_path, 'c', 'mine').leave()
    assert list((tmp_path / 'in_work').iterdir()) == []


def processes_of(root: Path) -> list[int]:
    """Processes that a run of this folder has started, by their environment."""
    found = []
    for path in Path('/proc').glob('[0-9]*'):
        try:
            if str(root) in (path / 'environ').read_bytes().decode('latin-1'):
                found.append(int(path.name))
        except OSError:
            pass
    return found


@pytest.mark.slow
@pytest.mark.parametrize('options', [[], ['--workers', '2']], ids=['one_process', 'two_processes'])
def test_a_driver_killed_again_and_again_accuses_no_image(quiet, tmp_path, options):
    reader, expected, counts = quiet
    cfg = simple(reader, wait=1)
    for _ in range(4):  # always in the first batch
        driver = start(cfg, tmp_path, *options)
        wait_for(lambda: list((tmp_path / 'run').glob('in_work/images-*0.json')), driver)
        driver.send_signal(signal.SIGKILL)
        driver.communicate()
        end = time.time() + 30
        while processes_of(tmp_path) and time.time() < end:
            time.sleep(0.05)
        assert processes_of(tmp_path) == []  # the workers have left with it
        assert not list((tmp_path / 'run').glob('ledger/*.json'))
    out, err = start(cfg, tmp_path, *options).communicate(timeout=480)
    result = json.loads(out.splitlines()[-1])
    assert result['counts'] == counts and result['quarantined'] == 0, err
    assert shards(tmp_path / 'run') == expected


@pytest.mark.slow
def test_an_image_that_kills_the_only_process_is_found_when_the_run_goes_on(quiet, tmp_path):
    reader, expected, _ = quiet
    cfg = simple(reader, die_at='005')
    first = start(cfg, tmp_path)
    first.communicate(timeout=480)
    assert first.returncode == -signal.SIGKILL
    out, err = start(cfg, tmp_path).communicate(timeout=480)
    result = json.loads(out.splitlines()[-1])
    assert result['counts']['images']['dropped'] == {'detect: killed its process': 1}, err
    mine = shards(tmp_path / 'run')
    assert [name for name in expected if mine[name] != expected[name]] == [
        'images-000001.npy', 'images-000001.tar']
    assert not list((tmp_path / 'run/in_work').iterdir())


@pytest.mark.slow
def test_a_file_that_kills_its_reader_is_at_fault(quiet, tmp_path):
    """The first chunks of the file, and the other files, are written."""
    reader, expected, _ = quiet
    tars = tmp_path / 'tars'
    tars.mkdir()
    for name in 'ab':
        parts, _ = pack([(f'{name}{k}.jpg', jpeg(k)) for k in range(3)])
        (tars / f'{name}.tar').write_bytes(b''.join(parts))
    cfg = simple(dict(type='KillingReader', paths=str(tars / '*.tar'), shard_size=2, die_in='a'))
    found = run(cfg, tmp_path / 'run', workers=1)
    assert found['counts']['images'] == dict(entered=5, written=5, dropped={})
    (reason, detail), = found['input_faults']
    assert reason == 'file unreadable' and detail.endswith('after 1 chunks: killed its process')


def start(cfg: dict, root: Path, *options) -> subprocess.Popen:
    path = root / 'config.py'
    path.write_text(''.join(f'{key} = {value!r}\n' for key, value in cfg.items()))
    env = dict(os.environ, PYTHONPATH=f'{ROOT}:{ROOT / "tests"}', OMP_NUM_THREADS='1',
               RUN_OF=str(root))
    return subprocess.Popen([sys.executable, str(ROOT / 'tools/annotate.py'), str(path),
                             '--work-dir', str(root / 'run'), *options], env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition, process, seconds=240) -> None:
    end = time.time() + seconds
    while not condition():
        if process.poll() is not None or time.time() > end:
            raise AssertionError(process.communicate())
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.parametrize('options', [[], ['--workers', '2'], ['--engine', 'ray']],
                         ids=['one_process', 'two_processes', 'ray'])
def test_the_driver_killed_in_mid_run(quiet, tmp_path, options):
    if 'ray' in options:
        pytest.importorskip('ray', reason=NO_RAY)
    reader, expected, counts = quiet
    cfg = simple(reader, wait=0.5)
    first = start(cfg, tmp_path, *options)
    ledger = tmp_path / 'run/ledger'
    wait_for(lambda: ledger.exists() and list(ledger.glob('[!.]*')), first)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert len(list(ledger.glob('[!.]*'))) < 3
    second = start(cfg, tmp_path, *options)
    out, err = second.communicate(timeout=480)
    assert second.returncode == 0, err
    assert json.loads(out.splitlines()[-1])['counts'] == counts
    assert shards(tmp_path / 'run') == expected


@pytest.mark.slow
def test_ray_writes_the_same(ray_cluster, quiet, tmp_path):
    reader, expected, counts = quiet
    found = ray_run(simple(reader), tmp_path)
    assert shards(tmp_path) == expected and found['counts'] == counts
    again = ray_run(simple(reader), tmp_path)
    assert again['counts'] == counts


@pytest.mark.slow
def test_ray_with_the_real_stages_and_duplicates(ray_cluster, real_data, tmp_path):
    from annotation_models import chat, detector, segmenter
    from test_annotation_models import real_stages
    models = dict(detect=detector(tmp_path / 'd'), sam=segmenter(tmp_path / 's', 'sam'),
                  describe=chat(tmp_path / 'c'))
    images = photos(real_data, tmp_path / 'images', 6)
    (images / 'copy.jpg').write_bytes(sorted(images.iterdir())[0].read_bytes())
    stages = real_stages(models)
    for name in ('detect', 'segment', 'describe', 'verify'):
        stages[name]['resources'] = dict(num_cpus=0.5, workers=2 if name == 'detect' else 1)
    from annotation_standin import config
    cfg = config(dict(type='ReadFolder', root=str(images), shard_size=3),
                 duplicates=dict(type='FilterDuplicates'), **stages)
    one = run(cfg, tmp_path / 'local')
    two = ray_run(cfg, tmp_path / 'ray')
    assert one['counts']['images']['dropped'] == {'duplicates: duplicate': 1}
    assert one['counts']['objects']['written'] > 6
    assert two['counts'] == one['counts']
    assert shards(tmp_path / 'ray') == shards(tmp_path / 'local')


@pytest.mark.slow
@pytest.mark.parametrize('always', [False, True])
def test_a_ray_worker_killed(ray_cluster, quiet, tmp_path, always):
    reader, expected, counts = quiet
    once = '' if always else str(tmp_path / 'died')
    cfg = simple(reader, die_at='005', once=once, resources=dict(num_cpus=0.5, workers=2))
    found = ray_run(cfg, tmp_path / 'run')
    if always:
        assert found['counts']['images']['dropped'] == {'detect: killed its process': 1}
    else:
        assert Path(once).exists()
        assert shards(tmp_path / 'run') == expected and found['counts'] == counts
