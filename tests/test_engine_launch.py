"""What tools do before a runner: configs, options, names of checkpoints, short schedules."""
import inspect
import os
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from engine_standin import TOY, ToyQueries, run_tool, train
from mmengine.config import Config
from mmengine.runner import Runner
from test_engine_runner import CONFIG, call_tool, scalars

from simpleseg_mm import cli
from simpleseg_mm.config import read_config
from simpleseg_mm.config_keys import READ_BY_ANNOTATE, RUNNER, check_config
from simpleseg_mm.engine import launch
from simpleseg_mm.registry import DATASETS, MODELS

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / 'configs/simpleseg'
NANO = str(RECIPES / 'nano_sft_refshapes.py')


@pytest.fixture
def config(tmp_path):
    path = tmp_path / 'toy.py'
    path.write_text(CONFIG)
    return path


def error_of(monkeypatch, capsys, *args):
    """The one line that a tool ends with."""
    with pytest.raises(SystemExit) as stop:
        call_tool(monkeypatch, *args)
    line = capsys.readouterr().out.strip().splitlines()[-1]
    assert stop.value.code == 2 and line.startswith('ERROR: ')
    return line


# --- settings that nothing reads ------------------------------------------------------------
@pytest.mark.parametrize('option, said', [
    ('optim_wraper.optimizer.lr=1e-3', 'nothing reads optim_wraper; did you mean optim_wrapper?'),
    ('optim_wrapper.optimizer.lrr=1e-3', 'did you mean lr?'),
    ('optim_wrapper.optimiser.lr=1e-3', 'did you mean optimizer?'),
    ('train_cfg.max_iter=3', 'did you mean max_iters?'),
    ('train_dataloader.batchsize=2', 'did you mean batch_size?'),
    ('train_dataloader.dataset.data_rot=x', 'did you mean data_root?'),
    ('train_dataloader.dataset.query.codec.token=9', 'did you mean tokens?'),
    ('model.mlm.dtype=x', 'did you mean mllm?'),
    ('model.mllm.min_pixel=9', 'did you mean min_pixels?'),
    ('model.generation.max_new_token=9', 'did you mean max_new_tokens?'),
    ('default_hooks.checkpoint.save_bst=x', 'did you mean save_best?'),
    ('default_hooks.checkpont.interval=9', 'did you mean checkpoint?'),
    ('param_scheduler.1.eta_min_ration=0', 'did you mean eta_min_ratio?'),
    ('randomness.sed=1', 'did you mean seed?'),
    ('tasks.text2mask=1', 'nothing reads tasks'),
    ('lr=1e-3', 'nothing reads lr'),
    ('global_batch_size=4', 'did you mean train_cfg.global_batch_size?'),
    ('data_root=elsewhere', r'set train_dataloader\.dataset\.data_root and val_dataloader'),
    ('visualizer.type=Visualiser', 'there is no Visualiser; did you mean'),
    ('train_cfg.type=SFTLoop', 'there is no SFTLoop'),
    ('model.mllm.type=QwenVl', 'did you mean QwenVL?'),
    ('default_hooks.x.type=TextDump', 'default_hooks.x'),
])
def test_a_typo_on_the_command_line_is_named(tmp_path, monkeypatch, capsys, option, said):
    if 'default_hooks.x' in option:
        option, said = 'default_hooks.x.type=TextDumpHook', 'there is no TextDumpHook'
    line = error_of(monkeypatch, capsys, 'train', NANO, '--work-dir', tmp_path / 'run',
                    '--cfg-options', option)
    assert re.search(said, line), line
    assert not (tmp_path / 'run').exists()


@pytest.mark.parametrize('text, said', [
    ('optim_wraper = dict(optimizer=dict(lr=1))', 'did you mean optim_wrapper?'),
    ('default_hook = dict()', 'did you mean default_hooks?'),
    ('load_form = "x"', 'did you mean load_from?'),
    ('global_batch_size = 5', 'did you mean train_cfg.global_batch_size?'),
    ('optim_wrapper = dict(optimizer=dict(weight_decy=1))', 'did you mean weight_decay?'),
    ('custom_hooks = [dict(type="NoHook")]', 'there is no NoHook'),
    ('custom_hooks = [dict(type="ReduceLogsHook", every=3)]', 'has no such setting'),
    ('val_evaluator = [dict(type="RESMetrik")]', 'there is no RESMetrik'),
    ('vis_backends = [dict(type="LocalVisBackent")]', 'did you mean LocalVisBackend?'),
    ('train_dataloader = dict(collate_fn=dict(type="collate_querys"))',
     'did you mean collate_queries?'),
    ('train_dataloader = dict(dataset=dict(pipeline=[dict(type="LoadNothing")]))',
     'there is no LoadNothing'),
])
def test_a_typo_in_a_config_is_named(tmp_path, text, said):
    path = tmp_path / 'child.py'
    path.write_text(f"_base_ = '{NANO}'\n{text}\n")
    with pytest.raises(ValueError, match=re.escape(said)):
        check_config(read_config(str(path)))


@pytest.mark.parametrize('text', [
    'train_set = dict(a=1)', 'my_lr = 3',
    'train_dataloader2 = dict(a=1)',
    'val_evaluators = [dict(type="RESMetric")]\nval_evaluator = val_evaluators',
    'custom_hooks = [dict(type="EMAHook", momentum=0.1, priority="LOW")]',
    'default_hooks = dict(samples=None, progress=None)',
    'model = dict(init_cfg=None)',
])
def test_what_is_right_is_not_refused(tmp_path, text):
    path = tmp_path / 'child.py'
    path.write_text(f"_base_ = '{NANO}'\n{text}\n")
    cfg = read_config(str(path))
    check_config(cfg)
    assert None not in cfg.default_hooks.values()


@pytest.mark.parametrize('options', [
    {'train_cfg.max_iters': 3}, {'custom_hooks': []}, {'find_unused_parameters': True},
    {'default_hooks.kill.type': 'EMAHook'}, {'model.mllm.dtype': 'float32'},
    {'train_dataloader.dataset.query.tasks.text2box': 1}, {'train_cfg.global_batch_size': None},
    {'env_cfg.dist_cfg.timeout': 9}, {'vis_backends': []}, {'work_dir': 'x'}])
def test_right_options_are_not_refused(options):
    check_config(read_config(NANO, options))


@pytest.mark.parametrize('options, said', [
    ({'stages.select.min_score': 0.4, 'order': ['image'], 'reader.root': 'x'}, None),
    ({'stages.select.min_scor': 0.4}, 'no such setting; did you mean min_score?'),
    ({'reader.type': 'ReadFoldr'}, 'reader.type: there is no ReadFoldr; did you mean ReadFolder'),
    ({'ordr': ['image']}, 'ordr: nothing reads ordr; did you mean order?'),
    ({'ann_file': 'x'}, 'has been used already; set stages.detect.ann_file')])
def test_options_of_the_data_engine(options, said):
    path = str(ROOT / 'configs/annotation/coco_oracle.py')
    if said is None:
        assert read_config(path, options, READ_BY_ANNOTATE)
    else:
        with pytest.raises(ValueError, match=re.escape(said)):
            read_config(path, options, READ_BY_ANNOTATE)


def test_vis_backends_of_a_child_have_effect(tmp_path):
    path = tmp_path / 'child.py'
    path.write_text(f"_base_ = '{NANO}'\nvis_backends = [dict(type='TensorboardVisBackend')]\n")
    assert read_config(str(path)).visualizer.vis_backends == [
        dict(type='TensorboardVisBackend')]


# --- arguments ------------------------------------------------------------------------------
@pytest.mark.parametrize('args, said', [
    (('test', 'CKPT', 'CONFIG'), 'give the config first'),
    (('test', 'CONFIG', 'CONFIG'), 'is a config: give the config first'),
    (('test', 'FOLDER', 'none'), 'is a folder, not a config: give one of its files: .*toy.py'),
    (('test', 'CONFIG', 'nowhere.pth'), "no checkpoint nowhere.pth.*'none' stands for"),
    (('test', 'CONFIG', 'none', '--cfg-options', 'load_from=CKPT'),
     '--cfg-options load_from is said by the argument checkpoint here: give that alone'),
    (('test', 'CONFIG', 'none', '--cfg-options', 'resume=True'), 'said by the argument checkp'),
    (('test', 'CONFIG', 'none', '--cfg-options', 'work_dir=x'), 'work_dir is said by --work-dir'),
    (('test', 'CONFIG', 'none', '--show-dir', 'x', '--cfg-options',
      'default_hooks.visualization.test_out_dir=y'), 'said by --show-dir'),
    (('train', 'CONFIG', '--cfg-options', 'work_dir=x'), 'work_dir is said by --work-dir'),
    (('train', 'CONFIG', '--cfg-options', 'launcher=slurm'), 'launcher is said by --launcher'),
    (('train', 'CONFIG', '--auto-scale-lr', '--cfg-options', 'train_cfg.global_batch_size=8'),
     'said by --auto-scale-lr'),
    (('train', 'CONFIG', '--resume', 'a.pth', '--cfg-options', 'load_from=b.pth'),
     'load_from is said by --resume'),
    (('test', 'CONFIG', 'EMPTY'), 'no best or last checkpoint in .*holds no checkpoint'),
    (('test', 'CONFIG', 'EMPTY/best'), 'no best checkpoint'),
    (('test', 'CONFIG', 'EMPTY/last'), 'no last checkpoint'),
    (('train', 'FOLDER'), 'is a folder'),
    (('train', 'CKPT'), 'is a checkpoint: give the config first'),
    (('train', 'configs/simpleseg/nano_sft_refshape.py'), 'did you mean nano_sft_refshapes'),
    (('train', 'TEXT'), 'is no config: give a .py file'),
    (('train', 'BROKEN'), r'broken.py.* is no valid config: SyntaxError.*line 2'),
    (('train', 'NAMEERROR'), r'name.py.* is no valid config: NameError'),
    (('train', 'CONFIG', '--resume', 'nowhere.pth'), 'no checkpoint nowhere.pth'),
    (('train', 'CONFIG', '--cfg-options', 'train_cfg.max_iters.x=1'), 'do not fit'),
    (('train', 'CONFIG', '--cfg-options', 'param_scheduler.9.end=1'), 'do not fit'),
    (('train', 'CONFIG', '--cfg-options', 'load_from=work_dirs/qwen25vl_sft_refcoco'),
     'Make it first, `simpleseg train qwen25vl_sft_refcoco`'),
    (('train', 'CONFIG', '--cfg-options', 'load_from=work_dirs/nano_sft_refshapes'),
     'no best or last checkpoint in work_dirs/nano_sft_refshapes. Make it first, `simpleseg '
     'train nano_sft_refshapes`'),  # stopped before its first one
    (('train', 'CONFIG', '--cfg-options', 'load_from=work_dirs/nano_sft_refshapes/last'),
     'no last checkpoint in work_dirs/nano_sft_refshapes. Make it first'),
    (('train', 'CONFIG', '--cfg-options', 'load_from=work_dirs/quickstart/sft'),
     'Make it first, `make quickstart`'),
    (('train', 'CONFIG', '--cfg-options', 'load_from=CKPT'), 'not written to its end'),
    (('train', 'CONFIG', '--cfg-options', 'train_cfg.max_iters=0'), 'at least 1'),
    (('train', 'CONFIG', '--cfg-options', 'train_cfg.max_iters=-5'), 'at least 1'),
    (('train', 'CONFIG', '--cfg-options', 'train_cfg.max_iters=2.5'), 'at least 1'),
    (('train', 'CONFIG', '--cfg-options', 'train_cfg.val_interval=0'), 'at least 1'),
])
def test_wrong_arguments_are_one_line(config, tmp_path, monkeypatch, capsys, args, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'work_dirs/nano_sft_refshapes').mkdir(parents=True)
    for name, text in {'a.pth': 'PK', 'a.txt': 'x', 'broken.py': 'a = 1\nb = = 2\n',
                       'name.py': 'a = nothing\n'}.items():
        (tmp_path / name).write_text(text)
    names = dict(CONFIG=config, CKPT=tmp_path / 'a.pth', FOLDER=tmp_path, TEXT='a.txt',
                 EMPTY=tmp_path / 'empty', BROKEN='broken.py', NAMEERROR='name.py')
    args = [re.sub(r'\b[A-Z]{4,}\b', lambda m: str(names[m[0]]), arg) for arg in args]
    line = error_of(monkeypatch, capsys, args[0], *args[1:3], '--work-dir', tmp_path / 'run',
                    *args[3:]) if args[0] == 'test' else error_of(
                        monkeypatch, capsys, *args[:2], '--work-dir', tmp_path / 'run', *args[2:])
    assert re.search(said, line), line


#: a tool that reads a config, and its other arguments
READERS = {
    'annotate.py': ['CONFIG', '--work-dir', 'run'], 'misc/print_config.py': ['CONFIG'],
    'analysis_tools/plan.py': ['CONFIG', '--gpus', '1', '--gpu-memory', '80'],
    'simpleseg report': ['CONFIG', 'answers.jsonl', '--out', 'run.html'],
    'analysis_tools/eval_text.py': ['CONFIG', 'answers.jsonl'],
    'analysis_tools/browse_dataset.py': ['CONFIG', '--out-dir', 'run'],
    'analysis_tools/retention.py': ['CONFIG', 'none'],
    'analysis_tools/calibrate.py': ['CONFIG', 'none', '--out', 'run/a.json'],
    'model_converters/to_huggingface.py': ['CONFIG', 'x.pth', 'run'],
    'dataset_converters/own_data.py': ['set.json', 'run', '--base', 'CONFIG']}


@pytest.mark.parametrize('broken, options, said', [
    ('broken.py', [], r'broken.py.* is no valid config: SyntaxError.*line 2'),
    ('gone.py', [], 'gone.py'), ('x.txt', [], 'x.txt is no config: give a .py file'),
    ('child.py', ['no_such_name.x=1'], 'no_such_name.x: nothing reads no_such_name'),
    ('child.py', ['default_scope.x=1'], 'do not fit')])
@pytest.mark.parametrize('tool', READERS)
def test_every_tool_reads_a_config_by_one_rule(tmp_path, monkeypatch, capsys, tool, broken,
                                               options, said):
    if options and 'own_data' in tool:
        return  # it has none
    monkeypatch.chdir(tmp_path)
    for name, text in {'broken.py': 'a = 1\nb = = 2\n', 'x.txt': 'a = 1\n', 'set.json': '{}',
                       'child.py': f'_base_ = {NANO!r}\n', 'answers.jsonl': '{}'}.items():
        (tmp_path / name).write_text(text)
    args = [broken if arg == 'CONFIG' else arg for arg in READERS[tool]]
    args += ['--cfg-options', *options] if options else []
    monkeypatch.setattr(sys, 'argv', [tool, *args])
    with pytest.raises(SystemExit) as stop:
        sys.exit(cli.main(['report', *args]) if tool == 'simpleseg report' else
                 runpy.run_path(str(ROOT / 'tools' / tool), run_name='called')['main']())
    out, err = capsys.readouterr()
    text = f'{out}{err}{stop.value.code}'
    assert stop.value.code and re.search(said, text), text
    assert 'Traceback' not in text and not (tmp_path / 'run').exists()


# --- names of checkpoints -------------------------------------------------------------------
def touch(folder, *names):
    for i, name in enumerate(names):
        torch.save(dict(state_dict={}), folder / name)
        os.utime(folder / name, (i, i))


@pytest.mark.parametrize('files, name, found', [
    (['iter_9.pth', 'iter_10.pth'], '', 'iter_10.pth'),
    (['iter_9.pth', 'iter_10.pth'], 'last', 'iter_10.pth'),
    (['iter_9.pth', 'best_x_iter_9.pth'], '', 'best_x_iter_9.pth'),
    (['iter_9.pth', 'best_x_iter_9.pth'], 'best', 'best_x_iter_9.pth'),
    (['iter_9.pth', 'best_x_iter_9.pth'], 'last', 'iter_9.pth'),
    (['best_x_iter_9.pth', 'best_x_iter_8.pth'], 'best', 'best_x_iter_8.pth'),  # the newest
    (['iter_9.pth'], 'iter_9.pth', 'iter_9.pth'),
])
def test_a_checkpoint_by_its_run(tmp_path, files, name, found):
    touch(tmp_path, *files)
    assert launch.find_checkpoint(str(tmp_path / name)) == str(tmp_path / found)


def test_the_pointer_names_the_best_one_also_in_a_moved_folder(tmp_path):
    touch(tmp_path, 'best_x_iter_4.pth', 'best_y_iter_8.pth')
    (tmp_path / 'best_checkpoint').write_text('/elsewhere/best_x_iter_4.pth')
    assert launch.find_checkpoint(str(tmp_path)).endswith('best_x_iter_4.pth')
    (tmp_path / 'best_checkpoint').write_text('/elsewhere/gone.pth')
    assert launch.find_checkpoint(str(tmp_path)).endswith('best_y_iter_8.pth')


@pytest.mark.parametrize('files, name, run', [
    (['iter_4.pth'], '', True), (['iter_4.pth'], 'best', True), (['iter_4.pth'], 'last', True),
    (['last_checkpoint'], '', True), (['best_checkpoint'], 'last', True),
    (['20260101_000000/vis_data/config.py'], '', True),  # stopped before its first checkpoint
    (['iter_4.pth'], 'iter_4.pth', False), (['iter_4.pth'], 'nothing', False),
    (['model.safetensors', 'config.json'], '', False), (['x.pth', 'config.json'], '', False),
    (['a.txt'], '', False), ([], 'gone/best', False),
    (['iter_4.pth/checkpoint.pth', 'iter_4.pth/.metadata'], 'iter_4.pth', False)])
def test_what_a_run_is(tmp_path, files, name, run):
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_bytes(b'')
    assert launch.names_run(str(tmp_path / name)) is run


def test_last_checkpoint_that_names_a_missing_file(tmp_path):
    touch(tmp_path, 'iter_4.pth')
    (tmp_path / 'last_checkpoint').write_text(str(tmp_path / 'iter_8.pth'))
    assert launch.find_checkpoint(str(tmp_path / 'last')).endswith('iter_4.pth')
    assert launch.find_resumable(str(tmp_path)).endswith('iter_4.pth')


def test_a_run_starts_from_another_by_its_folder(config, tmp_path, monkeypatch, capsys):
    first = tmp_path / 'first'
    call_tool(monkeypatch, 'train', config, '--work-dir', first, '--cfg-options',
              'train_cfg.max_iters=4', 'default_hooks.samples.interval=-1')
    best, = first.glob('best_*.pth')
    call_tool(monkeypatch, 'train', config, '--work-dir', tmp_path / 'second', '--cfg-options',
              f'load_from={first}', 'train_cfg.max_iters=1', 'default_hooks.samples.interval=-1')
    call_tool(monkeypatch, 'test', config, f'{first}/last', '--work-dir', tmp_path / 'test')
    out = capsys.readouterr().out
    assert f'Load checkpoint from {best}' in out
    assert f'Load checkpoint from {first}/iter_4.pth' in out


def test_weights_alone_are_not_resumed(config, tmp_path, monkeypatch, capsys):
    first = tmp_path / 'first'
    train(config, first, **{'train_cfg.max_iters': 4})
    best, = first.glob('best_*.pth')
    line = error_of(monkeypatch, capsys, 'train', config, '--work-dir', first, '--resume', best)
    assert 'holds no optimizer' in line and 'load_from' in line


# --- short runs -----------------------------------------------------------------------------
@pytest.mark.parametrize('recipe, total, left', [
    ('nano_sft_refshapes', 1200, [('LinearLR', 0, 40), ('CosineAnnealingLR', 40, None)]),
    ('nano_sft_refshapes', 41, [('LinearLR', 0, 40), ('CosineAnnealingLR', 40, None)]),
    ('nano_sft_refshapes', 40, [('LinearLR', 0, 4), ('CosineAnnealingLR', 4, None)]),
    ('nano_sft_refshapes', 20, [('LinearLR', 0, 2), ('CosineAnnealingLR', 2, None)]),
    ('nano_sft_refshapes', 19, [('CosineAnnealingLR', 0, None)]),
    ('nano_sft_refshapes', 1, [('CosineAnnealingLR', 0, None)]),
    ('qwen25vl_sft_refcoco', 20, [('LinearLR', 0, 2), ('CosineAnnealingLR', 2, None)]),
    ('nano_gspo_refshapes', 4, [('CosineAnnealingLR', 0, None)]),
    ('nano_gspo_refshapes', 20, [('LinearLR', 0, 4), ('CosineAnnealingLR', 4, None)]),
    ('qwen25vl_gspo_refcoco', 11, [('LinearLR', 0, 10)]),
    ('qwen25vl_gspo_refcoco', 10, []),
])
def test_the_warm_up_of_a_short_run(recipe, total, left, monkeypatch):
    said = []
    monkeypatch.setattr(launch, 'print_log', lambda text, **kwargs: said.append(text))
    cfg = Config.fromfile(RECIPES / f'{recipe}.py')
    before = [dict(s) for s in cfg.param_scheduler]
    cfg.train_cfg.max_iters = total
    launch.shorten_warm_up(cfg)
    assert [(s.type, s.begin, s.get('end')) for s in cfg.param_scheduler] == left
    assert len(said) == (before != [dict(s) for s in cfg.param_scheduler])


@pytest.mark.parametrize('total', [1, 2, 3, 24])
def test_a_short_run_reaches_its_learning_rate(tmp_path, total):
    path = tmp_path / 'toy.py'
    path.write_text(TOY + f"""
train_cfg = dict(global_batch_size=4, max_iters={total}, val_interval=1000)
val_dataloader = val_cfg = val_evaluator = None
test_dataloader = test_cfg = test_evaluator = None
default_hooks = dict(logger=dict(interval=1), samples=dict(interval=-1))
""")
    run = train(path, tmp_path / 'run')
    rates = [row['lr'] for row in scalars(run) if 'loss' in row]
    assert len(rates) == total and max(rates) == pytest.approx(2e-3)
    assert rates[-1] <= max(rates)


# --- data before the model ------------------------------------------------------------------
@pytest.mark.parametrize('tool, part', [('train', 'train'), ('train', 'val'), ('test', 'test')])
def test_missing_pictures_are_told_before_the_model_is_built(config, tmp_path, monkeypatch,
                                                             capsys, tool, part):
    config.write_text(CONFIG + f"""
{part}_dataloader.update(dataset=dict(type='NoPictures', length=9))
model = dict(type='NeverBuilt')
""")
    line = error_of(monkeypatch, capsys, tool, config, *['none'] * (tool == 'test'),
                    '--work-dir', tmp_path / 'run')
    assert 'no picture here.jpg' in line


@DATASETS.register_module()
class NoPictures(ToyQueries):
    def __getitem__(self, index):
        raise FileNotFoundError('no picture here.jpg')


@MODELS.register_module()
class NeverBuilt:
    def __init__(self):
        raise AssertionError('the model was built')


@pytest.mark.parametrize('name, found', [
    ('', 'best_x_iter_4.pth'), ('best', 'best_x_iter_4.pth'), ('last', 'iter_8.pth')])
def test_segment_and_serve_take_runs(tmp_path, name, found):
    from simpleseg_mm.apis import loading
    touch(tmp_path, 'iter_8.pth', 'best_x_iter_4.pth')
    assert loading.resolve(NANO, str(tmp_path / name))[1] == str(tmp_path / found)


def test_libraries_say_nothing_that_asks_nothing_of_a_user():
    result = run_tool('test.py', 'a.pth', NANO)
    assert result.returncode == 2 and result.stderr == ''
    assert result.stdout.count('\n') == 1 and 'give the config first' in result.stdout


def test_the_arguments_of_a_runner_are_known():
    """They are listed, not asked of MMEngine, which loads transformers with its Runner."""
    assert {'self', 'cfg', *RUNNER} == set(inspect.signature(Runner.__init__).parameters)
