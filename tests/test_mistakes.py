"""What users mistype, command by command: one line that says what to do, and no model loaded."""
import os
import shlex
import shutil
import signal
import sys
from collections import OrderedDict

import pytest
import transformers
from mmengine.logging import MMLogger
from PIL import Image

from simpleseg_mm import cli
from simpleseg_mm.commands.faults import line_of
from simpleseg_mm.config_keys import randomness
from simpleseg_mm.files import make_folder, replace_text
from simpleseg_mm.serving import check_address

N = 'nano_sft_refshapes'
PLAN = f'plan {N} --gpus 1 --gpu-memory 80'
CHAT = f'convert chat {N} out.jsonl --for ms-swift --stage sft'
#: what is there before the command, by name; a text is a file
THERE = {'mine': None, 'empty': None, 'file': 'x', 'mine.txt': 'x', 'bad.py': 'a = (',
         'zero.py': '\na = 1 / 0', 'none.py': '', 'half.py': 'model = dict(type="SimpleSeg")',
         'base.py': '_base_ = "nano_sft_refshapes.py"',
         'piece.py': '_base_ = "../_base_/models/nano.py"',
         'no_base.py': '_base_ = "no_such.py"', 'bad.json': '{', 'list.json': '[]',
         'junk.pth': 'junk', 'junk.jsonl': 'junk', 'empty.jsonl': '', 'row.jsonl': '{}\n',
         'text.jpg': 'hello', 'broken.yaml': 'a: [',
         's.yaml': f'config: {N}\narms: {{a: {{}}}}', 'near.yaml': 'config: nano_sft\narms: {a: }',
         'wrong.yaml': f'config: {N}\narms: {{a: {{cfg-options: {{optim_wraper.lr: 1}}}}}}',
         'tested.yaml': f'config: {N}\narms: {{a: }}\ntest-options: {{test_datalodr.x: 1}}',
         'tracked.py': f'_base_ = "{cli._PACKAGE.parent}/configs/simpleseg/{N}.py"\n'
                       'vis_backends = [dict(type="DVCLiveVisBackend")]',
         'imported.py': f'_base_ = "{cli._PACKAGE.parent}/configs/simpleseg/{N}.py"\n'
                        'custom_imports = dict(imports=["no_such_module"])'}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp('mistakes')
    for name, text in THERE.items():
        (root / name).mkdir() if text is None else (root / name).write_text(text)
    Image.new('RGB', (64, 48), (9, 99, 9)).save(root / 'photo.jpg')
    return root


@pytest.fixture
def answer(folder, monkeypatch, capsys):
    """Run a command where those files are; its exit status and its last line."""
    def load(*args, **kwargs):
        pytest.fail('a model was loaded before the mistake was told')
    monkeypatch.setattr(transformers.PreTrainedModel, '__init__', load)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(MMLogger, '_instance_dict', OrderedDict())  # its files are removed below
    before = {*os.listdir(folder)}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run(words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, 'argv', ['simpleseg', *shlex.split(words)])
        try:
            status = cli.main(sys.argv[1:])
        except SystemExit as end:
            if isinstance(end.code, str):
                print(end.code)
            status = end.code if isinstance(end.code, int) else 1
        said = capsys.readouterr()
        assert 'Traceback' not in said.out + said.err
        lines = [line for line in (said.err + said.out).splitlines() if line.strip()
                 and line[0] not in ' {']
        return status, lines[-1]
    yield run
    for number, handler in handlers.items():  # a tool sets its own
        signal.signal(number, handler)
    left = {*os.listdir(folder)} - before
    for name in left:
        shutil.rmtree(name)
    assert left <= {'work_dirs'}  # a run's log, or a study's record


@pytest.mark.parametrize('words, said', [
    # --- configs
    ('train nano_sft_refshape', f'no config nano_sft_refshape: did you mean {N} or'),
    (f'train {N}.pth', 'is a checkpoint: give the config first'),
    ('train mine', 'mine is a folder, not a config: give a .py file, or a name'),
    ('train mine.txt', 'mine.txt is no config: give a .py file'),
    ('train bad.py', 'bad.py is no valid config: SyntaxError'),
    ('train zero.py', 'zero.py, line 2 is no valid config: ZeroDivisionError'),
    ('train none.py', 'none.py has no model, train_dataloader, train_cfg, optim_wrapper: give a'),
    ('train half.py', 'half.py has no train_dataloader, train_cfg, optim_wrapper'),
    ('train base.py', 'base.py is no valid config: FileNotFoundError'),
    ('train base.py', "package's config by its path: _base_ = "
                      f"'{cli._PACKAGE.parent}/configs/simpleseg/{N}.py'"),
    ('train piece.py', f"_base_ = '{cli._PACKAGE.parent}/configs/_base_/models/nano.py'"),
    ('train no_base.py', "No such file or directory: '"),
    ('train bad.json', 'bad.json is no valid config: JSONDecodeError'),
    ('train imported.py', 'imported.py is no valid config: ImportError: Failed to import no_such'),
    ('train imported.py', 'Python finds a module of your own by PYTHONPATH=ITS_FOLDER'),
    ('train refshapes_oracle', 'refshapes_oracle.py has no model, train_dataloader'),
    ('plan refshapes_oracle --gpus 1 --gpu-memory 80', 'has no model, train_dataloader'),
    ('browse refshapes_oracle', 'has no train_dataloader'),
    ('browse none.py --mode val', 'none.py has no val_dataloader'),
    ('test none.py none', 'none.py has no model, test_dataloader, test_cfg, test_evaluator'),
    (f'annotate {N}', 'has no reader and no stages'),
    ('convert huggingface refshapes_oracle x.pth out', 'has no model'),
    # --- settings: the same of every command that takes them
    *((f'{command} --cfg-options optim_wraper.optimizer.lr=1',
       '--cfg-options optim_wraper.optimizer.lr: nothing reads optim_wraper; did you mean '
       'optim_wrapper?') for command in (
        f'train {N}', f'test {N} none', PLAN, f'browse {N}', CHAT, 'study s.yaml',
        f'report {N} row.jsonl', f'convert huggingface {N} x.pth out',
        'annotate refshapes_oracle')),
    *((f'{command} --cfg-options optim_wrapper.optimizer.lrr=1',
       'optim_wrapper.optimizer.lrr: MuonAdamW has no such setting; did you mean lr?')
      for command in (f'train {N}', f'test {N} none', PLAN, f'browse {N}', CHAT, 'study s.yaml')),
    *((f'{command} --cfg-options train_dataloader.dataset.type=RefShapeDataset',
       'train_dataloader.dataset.type: there is no RefShapeDataset; did you mean RefShapesDataset')
      for command in (f'train {N}', PLAN, f'browse {N}', CHAT, 'study s.yaml')),
    (f'train {N} --cfg-options model.mllm.type=Zzz', 'there are AutoVLM, KimiVL, QwenVL'),
    (f'train {N} --cfg-options model.mllm.type=QwenV', 'did you mean QwenVL?'),
    (f'train {N} --cfg-options optim_wrapper.optimizer.lr=fast',
     "optim_wrapper.optimizer.lr is 'fast'; MuonAdamW takes a number"),
    (f'train {N} --cfg-options train_cfg.max_iters=four', "train_cfg.max_iters is 'four'"),
    (f'train {N} --cfg-options train_cfg.max_iters=[4]', 'train_cfg.max_iters is [4]'),
    (f'train {N} --cfg-options train_cfg.max_iters=0', 'at least 1'),
    (f'train {N} --cfg-options max_iters=4', 'did you mean train_cfg.max_iters?'),
    (f'train {N} --cfg-options train_dataloader.batch_size=many', 'it was 8: give a number'),
    (f'train {N} --cfg-options train_dataloader.batch_size=0', 'batch_size is 0; give a whole'),
    (f'train {N} --cfg-options train_cfg.global_batch_size=-8', 'global_batch_size is -8; give'),
    (f'train {N} --cfg-options randomness.seed=x', "randomness.seed is 'x'; it was 0"),
    (f'train {N} --cfg-options randomness.sed=1', 'did you mean seed?'),
    (f'train {N} --cfg-options train_cfg=4', 'train_cfg is 4; give settings, train_cfg=dict(...)'),
    (f'train {N} --cfg-options model=None', 'has no model'),
    (f'train {N} --cfg-options default_hooks=x', "default_hooks is 'x'; give settings"),
    (f'train {N} --cfg-options visualizer=x', "visualizer is 'x'; give settings"),
    (f'train {N} --cfg-options "custom_hooks=[dict(type=NoHook)]"', 'in a config file'),
    (f'train {N} --cfg-options train_cfg.max_iters', 'max_iters: give KEY=VALUE, such as'),
    (f'train {N} --cfg-options =4', '=4: give KEY=VALUE'),
    (f'train {N} --cfg-options a..b=4', 'a..b=4: give KEY=VALUE'),
    (f'train {N} --cfg-options custom_imports.imports=no_such_module', 'Failed to import no_such'),
    (f'train {N} --cfg-options default_hooks.checkpoint.save_best=giou',
     "save_best is 'giou'; no metric of val_evaluator writes it: their figures begin with h"),
    (f'train {N} --cfg-options work_dir=x --work-dir y', 'work_dir is said by --work-dir here'),
    *((f'{command} --cfg-options {option}', f'{option.partition("=")[0]} is {said}')
      for command in (f'train {N}', PLAN) for option, said in [
        ('model.mllm.dtype=float17', "'float17'; give one of bfloat16, float16"),
        ('model.mllm.lora=yes', "'yes'; give settings, dict(r=64, ...), or None"),
        ('model.mllm.max_pixels=-1', '-1; give a number of pixels from 1 on'),
        ('optim_wrapper.clip_grad=1', '1; give settings, dict(max_norm=1.0)'),
        ('env_cfg.mp_cfg=3', '3; give settings'),
        ('log_level=LOUD', "'LOUD'; give one of CRITICAL"),
        ('default_scope=simpleseg', "'simpleseg'; give the package"),
        ('resume=maybe', "'maybe'; give True or False"),
        ('default_hooks.checkpoint.interval=0', '0; give a whole number from 1 on, or -1')]),
    *((f'{command} --cfg-options train_cfg.{name}=0', f'train_cfg.{name} is 0; give a whole')
      for command in ('train nano_gspo_refshapes',
                      'plan nano_gspo_refshapes --gpus 1 --gpu-memory 80')
      for name in ('group_size', 'micro_batch_size')),
    ('annotate refshapes_oracle --cfg-options reader.type=ReadFoldr', 'did you mean ReadFolder?'),
    ('annotate refshapes_oracle --cfg-options stages.detekt.min_score=1', 'did you mean detect?'),
    # --- files and folders
    (f'train {N}', 'there is no folder data/refshapes/refshapes. To get it, generate the set'),
    ('train tracked.py', 'pip install dvclive'),
    (f'train {N} --resume nothere.pth', 'no checkpoint nothere.pth'),
    (f'train {N} --cfg-options load_from=junk.pth', 'junk.pth cannot be read'),
    (f'train {N} --work-dir file', 'the work dir file is a file, or lies below one'),
    (f'train {N} --work-dir /proc/x', 'the work dir /proc/x cannot be made'),
    (f'test {N} junk.pth', 'junk.pth cannot be read'),
    (f'test {N} work_dirs/{N}', f'Make it first, `simpleseg train {N}`'),
    (f'test {N} none --out file/x.jsonl', 'the folder of --out file is a file'),
    (f'test {N} none --out x.txt', '--out x.txt: give a .pkl or a .jsonl file'),
    (f'convert huggingface {N} junk.pth out', 'junk.pth cannot be read'),
    ('convert refshapes file', 'is a file, or lies below one'),
    ('convert refcoco verify empty', 'empty holds no'),
    ('convert questions nothere', 'there is no folder nothere/refshapes'),
    ('convert own-data bad.json out', 'bad.json is not readable JSON'),
    ('convert own-data photo.jpg out', 'photo.jpg is no text'),
    ('convert kimi-vl empty out', 'no empty/config.json'),
    ('study s.yaml --out file', '--out file is a file'),
    (f'report {N} nothere.jsonl', 'no file of answers at nothere.jsonl'),
    (f'report {N} junk.jsonl', 'junk.jsonl, line 1: not JSON'),
    (f'report {N} empty.jsonl', 'empty.jsonl has no rows'),
    (f'report {N}', 'a report of a run needs answers'), ('report empty', 'no corrections empty'),
    ('segment nothere.jpg "the dog"', 'there is no picture nothere.jpg'),
    ('segment empty "the dog"', 'empty holds no pictures'),
    ('segment text.jpg "the dog"', 'text.jpg is no picture that can be read'),
    ('segment photo.jpg "the dog" --out-dir file', '--out-dir file is a file'),
    ('segment photo.jpg "the dog" --weights junk.pth', 'junk.pth cannot be read'),
    ('serve --port 0 --root nothere', 'there is no folder nothere: give one with pictures'),
    # --- arguments
    (f'train {N} --amp', '--amp needs a GPU, and none is visible'),
    (f'train {N} --launcher pytorch', 'that torchrun has started: torchrun --nproc-per-node=N'),
    (f'plan {N} --gpus 0 --gpu-memory 80', 'gpus=0: give a number above 0'),
    (f'{PLAN} --image 0 0', 'image=0: give a number above 0'),
    (f'browse {N} --num 0', '--num 0: give a number from 1 on'),
    (f'browse {N} --columns -1', '--columns -1: give a number from 1 on'),
    ('convert refshapes out --scenes-train 0 --scenes-val 0 --scenes-test 0', 'no scene is asked'),
    (f'{CHAT} --limit 0', '--limit 0: give a number from 1 on'),
    ('study nosuch', 'there is no study nosuch: give a .yaml file, or one of nano_gspo_rewards'),
    ('study nano_stage', 'did you mean nano_stages?'),
    ('study broken.yaml', 'broken.yaml is no YAML'), ('study near.yaml', 'no config nano_sft'),
    ('study wrong.yaml', 'nothing reads optim_wraper; did you mean optim_wrapper?'),
    ('study tested.yaml', 'nothing reads test_datalodr; did you mean test_dataloader?'),
    ('study s.yaml --gpus x', '--gpus x: give numbers, such as --gpus 0 1'),
    ('study s.yaml --sbatch=--partition=gpu', '--sbatch is for --launcher slurm'),
    ('study s.yaml --jobs 0', '--jobs is 0; give a whole number from 1'),
    ('segment photo.jpg', 'say what to segment'), ('segment photo.jpg --all', '--all is about'),
    ('segment photo.jpg --point 1000 1', 'outside the picture, which is 64 x 48 pixels'),
    ('segment photo.jpg --box 100 100 500 500', 'outside the picture, which is 64 x 48 pixels'),
    ('segment photo.jpg --box 9 9 5 5', 'x1 < x2 and y1 < y2'),
    ('segment photo.jpg x --batch-size 0', '--batch-size is 0; give a number from 1 on'),
    ('segment photo.jpg x --model nano_sft_refshape', f'did you mean {N} or'),
    ('segment photo.jpg x --device gpu', 'no device gpu: PyTorch sees'),
    ('segment photo.jpg x --endpoint localhost:8000', 'such as http://localhost:8000/v1'),
    ('segment simpleseg_mm://exampel.jpg x', 'does not ship with the package; what does'),
    ('serve --port 99999', '--port is 99999; give 1 to 65535'),
    ('serve --port 0 --host no.such.host.invalid', 'nothing can listen at no.such.host.invalid'),
    ('serve --port 0 --max-mb nan', 'max_mb is nan; give a number above 0'),
    ('serve --port 0 --max-megapixels -1', 'max_megapixels is -1.0; give a number above 0'),
    ('serve --port 0 --batch-size 0', '--batch-size is 0; give a number from 1 on'),
    ('serve --port 0 --label-studio-url x', "Label Studio's address is 'x'; give one such as"),
    ('grammar int1000 maks', "there is no grammar of 'maks'; choose one of"),
    ('grammar int0 mask', "grammar is 'int0'; choose decimal3"),
    ('doctor --jsn', 'unrecognized arguments: --jsn'), ('trian x', "invalid choice: 'trian'"),
], ids=str)
def test_a_mistake_is_told_in_one_line_before_a_model_is_loaded(answer, words, said):
    status, line = answer(words)
    assert status in (1, 2) and said in line


def test_what_a_worker_of_a_loader_raised_is_its_own_line():
    error = ValueError('Caught ValueError in DataLoader worker process 0.\nOriginal Traceback '
                       '(most recent call last):\n  File "x.py", line 1\nValueError: no picture\n')
    assert line_of(error) == 'no picture' and line_of(OSError('a\n b')) == 'a b'


def test_folders_are_made_or_only_tried(tmp_path):
    (tmp_path / 'file').write_text('')
    for place, said in (('file', 'is a file'), ('file/x', 'lies below one')):
        with pytest.raises(ValueError, match=said):
            make_folder(tmp_path / place, '--out')
    assert make_folder(tmp_path / 'a/b', '--out', keep=False) == tmp_path / 'a/b'
    assert not (tmp_path / 'a').exists()
    make_folder(tmp_path / 'a', '--out')
    make_folder(tmp_path / 'a/b', '--out', keep=False)
    assert (tmp_path / 'a').is_dir() and not (tmp_path / 'a/b').exists()
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        replace_text(tmp_path / 'none/x', '')


def test_a_port_that_another_program_has_is_told():
    import socket
    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        with pytest.raises(ValueError, match='in use'):
            check_address('127.0.0.1', other.getsockname()[1])
    check_address('127.0.0.1', 0)


def test_seeds_are_those_of_mmengine():
    import inspect

    from mmengine.runner import set_random_seed
    assert {*inspect.signature(randomness).parameters} == {
        *inspect.signature(set_random_seed).parameters}
