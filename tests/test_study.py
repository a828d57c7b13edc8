"""Studies: their files, their runs by a stand-in of the commands, their tables."""
import json
import math
import multiprocessing
import sys
import textwrap
import time

import pytest
from scipy import stats

from simpleseg_mm.study import drive, launch, launch_study, read_study, runs, states_of, table_of
from simpleseg_mm.study.launch import sbatch_script

STUDY = """
config: nano_sft_refshapes
seeds: [0, 1]
metrics: [res/gIoU]
arms:
  base: {}
  more: {cfg-options: {train_cfg.max_iters: 20}}
  after: {from: base}
"""
#: stands for simpleseg train and test: figures by the settings, failures where they are asked for
STANDIN = '''
import json, pathlib, sys
log = pathlib.Path(__file__).with_name('calls.jsonl')
with log.open('a') as file:
    print(json.dumps(sys.argv[1:]), file=file)
options = dict(word.split('=', 1) for word in sys.argv[sys.argv.index('--cfg-options') + 1:]
               ) if '--cfg-options' in sys.argv else {}
broken = pathlib.Path(__file__).with_name('broken')
folder = pathlib.Path(sys.argv[sys.argv.index('--work-dir') + 1])
if sys.argv[1] == 'train':
    if broken.exists() and f"{folder.parent.parent.name}/{options['randomness.seed']}" \\
            in broken.read_text():
        sys.exit('ERROR: out of memory')
    (folder / '1/vis_data').mkdir(parents=True, exist_ok=True)
    seed, more = int(options['randomness.seed']), int(options.get('train_cfg.max_iters', 10))
    start = pathlib.Path(options['load_from']).parent if 'load_from' in options else None
    value = 50 + seed + more / 10 + (json.loads((start / 'made').read_text()) if start else 0)
    (folder / 'made').write_text(json.dumps(value))
    rows = [{'loss': 1.0, 'step': 5}, {'res/gIoU': value - 1, 'step': 5},
            {'res/gIoU': value, 'step': 10}]
    (folder / '1/vis_data/scalars.json').write_text('\\n'.join(map(json.dumps, rows)) + '\\n{"hal')
else:
    print('a line of a log')
    made = pathlib.Path(sys.argv[3]).parent / 'made'
    print(json.dumps({'res/gIoU': json.loads(made.read_text()) + .5, 'other': None}))
'''


@pytest.fixture
def standin(tmp_path, monkeypatch):
    """The stand-in's folder; ``calls()`` are the commands so far."""
    folder = tmp_path / 'standin'
    folder.mkdir()
    (folder / 'command.py').write_text(STANDIN)
    monkeypatch.setattr(runs, '_command', lambda processes: [
        sys.executable, str(folder / 'command.py')])
    monkeypatch.setattr(drive, '_configs_of', lambda study: {
        arm.name: f'{arm.config} {sorted(arm.options.items())}' for arm in study.arms})
    monkeypatch.setattr(drive, 'visible_gpus', list)
    return folder


def calls(standin) -> list:
    log = standin / 'calls.jsonl'
    return [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []


def written(tmp_path, text=STUDY, name='mine.yaml'):
    path = tmp_path / name
    path.write_text(textwrap.dedent(text))
    return path


def run(simpleseg, *words) -> int:
    return simpleseg(['study', *map(str, words)])


@pytest.fixture
def simpleseg():
    from simpleseg_mm.cli import main
    return main


# --- malformed input ----------------------------------------------------------------------------
@pytest.mark.parametrize('text, message', [
    ('', 'is no study; it has keys arms, cfg-options'),
    ('a: [', 'is no YAML'),
    ('- 1', 'is no study'),
    ('arms: {a: {}}', 'has no config'),
    ('config: c', 'arms is None; give a name and settings a row'),
    ('{config: c, arms: {}}', 'arms is {}'),
    ('{config: c, arms: {a: 3}}', "arm 'a' is 3; give settings"),
    ('{config: c, arms: {a: {}}, sed: [1]}', "unknown key 'sed'; did you mean seeds"),
    ('{config: c, arms: {a: {cfg-option: {}}}}', 'did you mean cfg-options'),
    ('{config: c, arms: {a: {cfg-options: [1]}}}', 'give settings, such as'),
    ('{config: c, arms: {a: {}}, seeds: []}', r'seeds is \[\]; give a list'),
    ('{config: c, arms: {a: {}}, seeds: [1, 1]}', 'different whole numbers'),
    ('{config: c, arms: {a: {}}, seeds: [true]}', 'different whole numbers'),
    ('{config: c, arms: {a: {}}, seeds: 3}', 'give a list'),
    ('{config: c, arms: {a: {}}, metrics: res/gIoU}', 'metrics is'),
    ('{config: c, arms: {a: {}}, checkpoint: newest}', 'give best or last'),
    ('{config: c, arms: {a: {}}, test: 1}', 'give true or false'),
    ('{config: c, arms: {a: {}}, processes: 0}', 'whole number from 1'),
    ('{config: c, arms: {a: {from: b}, b: {}}}', 'none of the arms above it'),
    ('{config: c, arms: {a: {}, a: {}}}', "'a' stands twice"),
    ('{config: c, arms: {a b: {}, a-b: {}}}', 'two arms would lie in the folder a-b'),
    ('{config: c, arms: {A: {}, a: {}}}', 'two arms would lie in the folder'),
    ('{config: c, arms: {a: {cfg-options: {randomness.seed: 3}}}}', 'which seeds says'),
    ('{config: c, arms: {a: {}, b: {from: a, cfg-options: {load_from: x}}}}', 'which from says'),
])
def test_files_that_are_no_studies(tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as error:
        read_study(written(tmp_path, text))
    assert '\n' not in str(error.value) and 'mine.yaml' in str(error.value)


def test_a_study_that_is_not_there(tmp_path, simpleseg, capsys):
    with pytest.raises(FileNotFoundError, match='there is no study'):
        read_study(tmp_path / 'none.yaml')
    assert run(simpleseg, tmp_path / 'none.yaml') == 2
    assert 'nano_gspo_rewards, nano_stages' in capsys.readouterr().err


def test_a_wrong_setting_is_told_before_the_first_run(tmp_path, simpleseg, capsys):
    path = written(tmp_path, STUDY.replace('train_cfg.max_iters', 'train_cfg.max_iter'))
    assert run(simpleseg, path, '--out', tmp_path / 'out') == 2
    assert 'max_iters' in capsys.readouterr().err and not (tmp_path / 'out').exists()


# --- runs ---------------------------------------------------------------------------------------
def test_runs_a_table_and_nothing_twice(tmp_path, standin, simpleseg, capsys):
    path, out = written(tmp_path), tmp_path / 'out'
    assert run(simpleseg, path, '--out', out, '--dry-run') == 0 and not out.exists()
    assert run(simpleseg, path, '--out', out, '--jobs', 2) == 0
    said = capsys.readouterr().out
    assert '(6 of 6 runs)' in said and 'left)' in said
    figures = {(row['arm'], seed): value for row in json.loads(
        (out / 'table.json').read_text())['rows'] for seed, value in row['values'].items()}
    assert figures == {('base', '0'): 51.5, ('base', '1'): 52.5, ('more', '0'): 52.5,
                       ('more', '1'): 53.5, ('after', '0'): 102.5, ('after', '1'): 104.5}
    assert '| base | 2 | 52.00 ± 0.71 |  |' in (out / 'table.md').read_text()
    assert '| more | 2 | 53.00 ± 0.71 | +1.00 |' in (
        out / 'table.md').read_text()
    assert r'more & 2 & $53.00 \pm 0.71$ & $+1.00$ \\' in (out / 'table.tex').read_text()
    assert (out / 'table.png').read_bytes()[:4] == b'\x89PNG'
    assert len(calls(standin)) == 12
    assert run(simpleseg, path, '--out', out) == 0 and len(calls(standin)) == 12
    after = next(call for call in calls(standin) if call[0] == 'train' and 'after' in call[3])
    assert f'load_from={out.resolve()}/base/seed_0/train/best' in after \
        or f'load_from={out.resolve()}/base/seed_1/train/best' in after


def test_a_seed_that_fails_stops_no_other_and_is_made_again(tmp_path, standin, simpleseg, capsys):
    path, out = written(tmp_path), tmp_path / 'out'
    (standin / 'broken').write_text('base/1')
    assert run(simpleseg, path, '--out', out) == 1
    said = capsys.readouterr().out
    assert 'base, seed 1: FAILED: train: ERROR: out of memory' in said
    assert 'after, seed 1: left out: base, seed 1, which it starts from, has failed' in said
    assert '| after | 1 of 2 | 102.50 | +51.00 |' in said
    (standin / 'broken').unlink()
    before = len(calls(standin))
    assert run(simpleseg, path, '--out', out) == 0
    assert len(calls(standin)) - before == 4  # two trainings, two tests
    assert '| after | 2 | 103.50 ± 1.41 |' in capsys.readouterr().out


def test_a_study_that_is_edited_half_way(tmp_path, standin, simpleseg, capsys):
    path, out = written(tmp_path), tmp_path / 'out'
    assert run(simpleseg, path, '--out', out) == 0
    written(tmp_path, STUDY.replace('20', '30').replace('[0, 1]', '[0]'))
    assert run(simpleseg, path, '--out', out) == 2
    captured = capsys.readouterr()
    assert '1 runs were made with other settings' in captured.err
    assert 'more, seed 0' in captured.err
    assert '3 runs are of arms or seeds that the study no longer has' in captured.out
    assert run(simpleseg, path, '--out', out, '--collect') == 1  # without the changed one
    assert '| more | 0 of 1 |' in capsys.readouterr().out
    assert run(simpleseg, path, '--out', out, '--redo') == 0
    assert (out / 'more/seed_0.old-1/run.json').is_file()
    assert '| more | 1 | 53.50 |' in capsys.readouterr().out
    # what starts from a changed run is changed, too
    written(tmp_path, STUDY.replace('base: {}', 'base: {cfg-options: {train_cfg.max_iters: 40}}'))
    states = states_of(read_study(path), out.resolve(), drive._configs_of(read_study(path)))
    assert {run.label for run in states.changed} >= {'base, seed 0', 'after, seed 0'}


def test_two_studies_in_one_folder(tmp_path, standin, simpleseg, capsys):
    out = tmp_path / 'out'
    assert run(simpleseg, written(tmp_path), '--out', out) == 0
    assert run(simpleseg, written(tmp_path, name='other.yaml'), '--out', out) == 2
    assert "holds the study 'mine', not 'other'" in capsys.readouterr().err


def test_a_run_is_made_by_one_process(tmp_path, standin):
    study = read_study(written(tmp_path))
    one = states_of(study, tmp_path / 'out', drive._configs_of(study)).runs[0]
    with runs._alone(one), pytest.raises(ValueError, match='another process makes base, seed 0'):
        runs.make_run(one)
    assert runs.make_run(one)['state'] == 'done'


def test_what_was_stopped_goes_on(tmp_path, standin):
    study = read_study(written(tmp_path))
    one = states_of(study, tmp_path / 'out', drive._configs_of(study)).runs[0]
    script = standin / 'command.py'
    script.write_text('import os, signal; os.kill(os.getpid(), signal.SIGTERM)')
    assert runs.make_run(one)['state'] == 'stopped' and one.result['state'] == 'stopped'
    script.write_text(STANDIN)
    assert runs.make_run(one)['figures']['res/gIoU'] == 51.5
    assert calls(standin)[0][4] == '--resume'


@pytest.mark.parametrize('test, figure, state', [
    ('true', 'res/cIoU', 'failed'), ('false', 'res/gIoU', 'done')])
def test_figures_of_test_or_validation(tmp_path, standin, test, figure, state):
    study = read_study(written(tmp_path, STUDY.replace('res/gIoU', figure) + f'test: {test}\n'))
    one = states_of(study, tmp_path / 'out', drive._configs_of(study)).runs[0]
    said = runs.make_run(one)
    assert said['state'] == state
    if state == 'done':
        assert said['figures'] == {'res/gIoU': 51.0} and len(calls(standin)) == 1
    else:
        assert said['error'] == 'no figure res/cIoU; there are other, res/gIoU'


def test_slurm_arrays_one_a_level(tmp_path, standin, simpleseg, monkeypatch, capsys):
    path, out = written(tmp_path), tmp_path / "o'ut"
    assert run(simpleseg, path, '--out', out, '--launcher', 'slurm') == 2
    assert 'there is no sbatch here' in capsys.readouterr().err
    fake = tmp_path / 'bin'
    fake.mkdir()
    (fake / 'sbatch').write_text(f'#!/bin/bash\necho "$@" >> {fake}/calls; echo 7\n')
    (fake / 'sbatch').chmod(0o755)
    monkeypatch.setenv('PATH', str(fake), prepend=':')
    assert run(simpleseg, path, '--out', out, '--launcher', 'slurm', '--jobs', 3,
               '--sbatch=--partition=gpu') == 0
    first, second = (fake / 'calls').read_text().splitlines()
    assert first.endswith('slurm_0.sh') and '--dependency=afterany:7' in second
    script = (out / 'slurm_0.sh').read_text()
    assert '#SBATCH --array=0-3%3\n' in script and '#SBATCH --partition=gpu' in script
    assert "    2) run=('more' 0);;" in script and 'slurm_0' in first
    assert "after' 1" in (out / 'slurm_1.sh').read_text()
    assert not calls(standin)


#: stands for Slurm: sbatch makes the tasks of its array at once, one after the other; srun notes
#: what each would run
SBATCH = '''#!/bin/bash
script="${@: -1}"
last=$(sed -n 's/^#SBATCH --array=0-\\([0-9]*\\).*/\\1/p' "$script")
for k in $(seq 0 $last); do SLURM_ARRAY_TASK_ID=$k bash "$script" || exit 1; done >&2
echo "7;cluster"
'''
SRUN = f'''#!{sys.executable}
import json, pathlib, sys
with open(pathlib.Path(__file__).with_name('tasks'), 'a') as file:
    print(json.dumps(sys.argv[1:]), file=file)
'''


def test_what_slurm_is_asked_for_makes_the_study(tmp_path, standin, simpleseg, monkeypatch,
                                                 capsys):
    path, out = written(tmp_path), tmp_path / "o'u t"
    fake = tmp_path / 'bin'
    fake.mkdir()
    for name, text in (('sbatch', SBATCH), ('srun', SRUN)):
        (fake / name).write_text(text)
        (fake / name).chmod(0o755)
    monkeypatch.setenv('PATH', str(fake), prepend=':')
    changes = ('--cfg-options', 'train_cfg.max_iters=50', "work='it is'")
    assert run(simpleseg, path, '--out', out, '--launcher', 'slurm', *changes) == 0
    script = (out / 'slurm_0.sh').read_text()
    assert '#SBATCH --array=0-3%4\n' in script  # all that Slurm has room for
    assert f'#SBATCH --output="{out}/slurm_%A_%a.log"\n' in script
    tasks = [json.loads(line) for line in (fake / 'tasks').read_text().splitlines()]
    assert [task[:4] for task in tasks] == [
        ['--ntasks=1', sys.executable, '-m', 'simpleseg_mm']] * 6
    assert all(run(simpleseg, *task[5:]) == 0 for task in tasks)
    assert run(simpleseg, path, '--out', out, '--collect', *changes) == 0
    assert '| base | 2 | 56.00 ± 0.71 |' in capsys.readouterr().out  # with the changes


STOPPED = '''
import os, pathlib, signal, time
here = pathlib.Path(__file__).parent
def stop(*_):
    time.sleep(1)
    (here / 'saved').write_text('')
    os._exit(143)
signal.signal(signal.SIGTERM, stop)
(here / 'started').write_text('')
time.sleep(60)
'''


def test_a_study_that_is_killed_leaves_no_training_behind(tmp_path, standin):
    """Its training is asked to stop; until it has saved, nobody else makes the run."""
    one = states_of(read_study(written(tmp_path)), tmp_path / 'out',
                    dict.fromkeys(('base', 'more', 'after'), '')).runs[0]
    (standin / 'command.py').write_text(STOPPED)
    study = multiprocessing.get_context('fork').Process(target=runs.make_run, args=(one, ))
    study.start()
    _until((standin / 'started').exists)
    study.kill()
    study.join()
    with pytest.raises(ValueError, match='another process makes base, seed 0'):
        runs.make_run(one)
    _until((standin / 'saved').exists)
    (standin / 'command.py').write_text(STANDIN)
    _until(lambda: _is_free(one))
    assert runs.make_run(one)['state'] == 'done'


def _is_free(one) -> bool:
    try:
        with runs._alone(one):
            return True
    except ValueError:
        return False


def _until(done) -> None:
    for _ in range(600):
        if done():
            return
        time.sleep(0.05)
    raise AssertionError('not within 30 s')


def test_the_command_that_slurm_calls(tmp_path, standin, simpleseg, capsys):
    path, out = written(tmp_path), tmp_path / 'out'
    assert run(simpleseg, path, '--out', out, '--run', 'none', 0) == 2
    assert run(simpleseg, path, '--out', out, '--run', 'after', 0) == 2  # base is not there yet
    assert run(simpleseg, path, '--out', out, '--run', 'base', 0) == 0
    assert run(simpleseg, path, '--out', out, '--run', 'after', 0) == 0
    assert run(simpleseg, path, '--out', out, '--collect') == 1
    assert '| after | 1 of 2 | 102.50 | +51.00 |' in capsys.readouterr().out


def test_ray_makes_the_same(tmp_path, standin):
    pytest.importorskip('ray')
    study = read_study(written(tmp_path))
    states = states_of(study, tmp_path / 'out', drive._configs_of(study))
    assert not launch_study('ray', states.runs, tmp_path, tmp_path / 'out', 2).failed


def test_gpus_are_shared_out(tmp_path, standin, monkeypatch):
    study = read_study(written(tmp_path, STUDY + 'processes: 2\n'))
    states = states_of(study, tmp_path / 'out', drive._configs_of(study))
    seen = []

    def made(one, environment):
        seen.append(environment['CUDA_VISIBLE_DEVICES'])
        return dict(state='done', error='', figures={'res/gIoU': 1.0}, seconds=1.0)
    monkeypatch.setattr(launch, 'make_run', made)
    launch_study('local', states.runs, tmp_path, tmp_path / 'out', 2, ['0', '1', '2', '3', '4'],
                 tell=lambda line: None)
    assert set(seen) == {'0,1', '2,3'} and len(seen) == 6
    with pytest.raises(ValueError, match='a run has 2 processes and there are 1 GPUs'):
        launch_study('local', states.runs, tmp_path, tmp_path / 'out', 1, ['0'])


# --- the table ----------------------------------------------------------------------------------
def test_a_table_by_hand():
    first, second = [60.0, 62.0, 61.0], [61.0, 64.5, 61.5]
    figures = {(arm, seed): {'m': value} for arm, values in (('a', first), ('b & c|', second))
               for seed, value in enumerate(values)} | {('one', 1): {'m': 70.0}}
    table = table_of('s', ('a', 'b & c|', 'one', 'none'), ('m', ), (0, 1, 2), figures)
    row = table.row('b & c|', 'm')
    assert math.isclose(row.mean, 187 / 3) and math.isclose(row.spread, 1.8929694486)
    assert math.isclose(row.difference, 4 / 3) and row.pairs == 3
    expected = stats.ttest_rel(second, first)
    assert math.isclose(row.p, expected.pvalue)
    assert math.isclose(row.interval, 4 / 3 - expected.confidence_interval(0.95).low)
    assert (table.row('a', 'm').difference, table.row('a', 'm').p) == (None, None)
    one, none = table.row('one', 'm'), table.row('none', 'm')
    assert (one.mean, one.spread, one.difference, one.p, one.pairs) == (70, None, 8, None, 1)
    assert (none.mean, none.difference) == (None, None)
    assert table.to_markdown().splitlines()[3].startswith('| b & c\\| | 3 | 62.33 ± 1.89 | +1.33')
    assert r'b \& c| & 3 &' in table.to_latex() and 'none & 0 of 3 &  & ' in table.to_latex()


@pytest.mark.parametrize('changes', [(0.0, 0.0, 0.0), (0.1 + 0.2, 0.3, 0.3), (-2.0, -2.0, -2.0)])
def test_equal_differences_are_not_tested(changes):
    figures = {(arm, seed): {'m': 50 + seed + change} for seed, change in enumerate(changes)
               for arm, change in (('a', 0), ('b', change))}
    row = table_of('s', ('a', 'b'), ('m', ), (0, 1, 2), figures).row('b', 'm')
    assert math.isclose(row.difference, changes[1], abs_tol=1e-9)
    assert (row.interval, row.p, row.pairs) == (None, None, 3)


def test_the_script_names_odd_arms(tmp_path):
    study = read_study(written(tmp_path, "{config: c, arms: {\"it's $HOME\": {}}, seeds: [0]}"))
    states = states_of(study, tmp_path, {"it's $HOME": ''})
    assert "run=('it'\\''s $HOME' 0)" in sbatch_script(states.runs, tmp_path / 's', tmp_path, 1,
                                                       [])
