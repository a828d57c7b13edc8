"""Private names of other packages: which four are touched, and what an upgrade must not change."""
import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.infer import BaseInferencer
from mmengine.runner import IterBasedTrainLoop
from torch import nn
from transformers.image_processing_backends import PilBackend

import simpleseg_mm
from simpleseg_mm.analysis import Rehearsal
from simpleseg_mm.apis import SimpleSegInferencer
from simpleseg_mm.engine import RLTrainLoop
from simpleseg_mm.engine.sft_loop import SFTTrainLoop
from simpleseg_mm.models.families.kimi_pictures import Kimi_K25ImageProcessorPil

PACKAGE = Path(simpleseg_mm.__file__).parent
OTHERS = ('torch', 'transformers', 'peft', 'mmengine', 'mmdet', 'mmcv', 'deepspeed')
#: docs/dependencies.md says why; (file, name)
ALLOWED = {
    ('analysis/rehearsal.py', 'torch._subclasses.fake_tensor.FakeTensorMode'),
    ('apis/inferencer.py', '_init_pipeline'),
    ('engine/rl_loop.py', '_iter'),
    ('engine/sft_loop.py', '_iter'),
    ('models/families/kimi_pictures.py', '_preprocess'),
}
#: of Python itself and of our own classes, on something else than self
OURS = {
    'os._exit', 'atexit._run_exitfuncs', 'tile._replace', 'subset._group_by_image', 'many._before',
    'grammar._list', 'optimizer._ns_dtype', 'optimizer._share', 'optimizer._processes',
    'optimizer._orthogonalize',
}
SELF = ('self', 'cls', 'super()')


#: documented names of ``collections.namedtuple``
NAMEDTUPLE = {'_replace', '_asdict', '_fields', '_make', '_field_defaults'}


def private(name: str) -> bool:
    return name.startswith('_') and not name.startswith('__') and name not in NAMEDTUPLE


def imported(tree: ast.AST) -> Iterator[str]:
    """Private modules and names that are imported from other packages."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and not node.level:
            names = [f'{node.module}.{alias.name}' for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        yield from (name for name in names if not name.startswith('simpleseg_mm')
                    and any(map(private, name.split('.'))))


def foreign(tree: ast.AST) -> Iterator[str]:
    """Private attributes of anything but one's own object, also by ``getattr`` and the like."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and private(node.attr):
            owner = ast.unparse(node.value)
            if owner not in SELF and f'{owner}.{node.attr}' not in OURS:
                yield node.attr
        owner, name = by_name(node)
        if private(name) and owner not in SELF:
            yield name


def by_name(node: ast.AST) -> tuple[str, str]:
    """What ``getattr`` and the like are given: an object, and a name or its beginning."""
    if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
            and node.func.id in ('getattr', 'setattr', 'hasattr', 'delattr')):
        return ast.unparse(node.args[0]), ast.unparse(node.args[1]).lstrip('f').strip('\'"')
    return '', ''


def inherited(tree: ast.AST, module) -> Iterator[str]:
    """Private names that a class shares with one of another package that it is derived from."""
    for node in ast.walk(tree):
        cls = getattr(module, node.name, None) if isinstance(node, ast.ClassDef) else None
        if not inspect.isclass(cls):
            continue
        theirs = {name for base in cls.__mro__ if base.__module__.split('.')[0] in OTHERS
                  for name in names_of(base)}
        for part in ast.walk(node):
            owner, name = by_name(part)
            if isinstance(part, ast.FunctionDef):
                owner, name = 'self', part.name
            elif isinstance(part, ast.Attribute):
                owner, name = ast.unparse(part.value), part.attr
            if owner in SELF and name in theirs:
                yield name


@cache
def names_of(cls: type) -> set[str]:
    """Private names that a class defines, or that its methods set on ``self``."""
    names = set(filter(private, vars(cls)))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return names
    return names | {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)
                    and private(node.attr) and ast.unparse(node.value) in SELF}


def touched(path: Path) -> set[tuple[str, str]]:
    tree = ast.parse(path.read_text())
    name = path.relative_to(PACKAGE).as_posix()
    module = None  # of no class that is derived nothing is inherited: optional packages may lack
    if any(isinstance(node, ast.ClassDef) and node.bases for node in ast.walk(tree)):
        try:
            module = importlib.import_module('.'.join(
                ('simpleseg_mm', *Path(name).with_suffix('').parts)).removesuffix('.__init__'))
        except ModuleNotFoundError:
            if not name.startswith('integrations/'):  # a guest whose tool is not installed
                raise
    return {(name, one) for one in (*imported(tree), *foreign(tree), *inherited(tree, module))}


# --- the rule ---------------------------------------------------------------------------------
@pytest.mark.parametrize('code, names', [
    ('from mmengine._strategy import DDPStrategy', ['mmengine._strategy.DDPStrategy']),
    ('from mmengine.runner.checkpoint import _load_checkpoint',
     ['mmengine.runner.checkpoint._load_checkpoint']),
    ('import torch._dynamo', ['torch._dynamo']),
    ('from __future__ import annotations', []),
    ('from ._own import _one', []),
    ('runner._resume', ['_resume']),
    ('torch._C._current_graph_task_id()', ['_current_graph_task_id', '_C']),
    ("getattr(wrapper, '_accumulative_counts', 1)", ['_accumulative_counts']),
    ("setattr(runner, f'_{part}_dataloader', 1)", ['_{part}_dataloader']),
    ('self._own + cls._own + x.__dict__ + os._exit', []),
])
def test_the_rule_sees(code, names):
    tree = ast.parse(code)
    assert [*imported(tree), *foreign(tree)] == names


def test_the_rule_sees_what_a_class_shares_with_its_base():
    class Loop(IterBasedTrainLoop):
        pass
    code = ('class Loop:\n def _decide_current_val_interval(self):\n'
            '  getattr(self, "_epoch", self._max_iters)')
    found = list(inherited(ast.parse(code), type('module', (), dict(Loop=Loop))))
    assert found == ['_decide_current_val_interval', '_epoch', '_max_iters']


def test_nothing_else_is_touched():
    """Outside ``acceleration``, whose measures are checked against the plain path one by one."""
    found = set().union(*(touched(path) for path in sorted(PACKAGE.rglob('*.py'))
                          if 'acceleration' not in path.parts))
    assert found == ALLOWED
    assert len({name for _, name in ALLOWED}) <= 5


# --- what an upgrade must not change ------------------------------------------------------------
def test_fake_tensor_mode():
    """Tensors without data on a device that need not be there; operators see both passes."""
    rehearsal = Rehearsal(vocabulary=7)
    model = nn.Linear(4, 5, device='meta')
    rehearsal.adopt(model)
    with rehearsal:
        with rehearsal.phase() as forward:
            loss = model(torch.ones(3, 4)).sum()
        with rehearsal.phase(backward=True) as backward:
            loss.backward()
    assert rehearsal.is_our_fake(model.weight) and model.weight.device.type == 'cpu'
    assert forward.flops == 2 * 3 * 4 * 5 and backward.flops == 2 * 3 * 4 * 5  # of the weights
    assert rehearsal.alive['weights'] == rehearsal.alive['gradients'] == 4 * (4 * 5 + 5)


@pytest.mark.parametrize('loop', [SFTTrainLoop, RLTrainLoop])
def test_the_count_of_a_loop(loop):
    """What a runner sets at a resume, ``run`` counts by, and ``iter`` tells."""
    count = object.__new__(loop)
    count._iter = 3
    assert count.iter == 3
    source = inspect.getsource(IterBasedTrainLoop.run)
    assert 'while self._iter < self._max_iters' in source
    assert 'self._iter += 1' in inspect.getsource(IterBasedTrainLoop.run_iter)
    assert 'self._iter' not in inspect.getsource(loop.run_iter).replace('self._iter += 1', '')


def test_the_pipeline_of_an_inferencer():
    """A method that every inferencer of MMEngine must have, and ``__init__`` calls."""
    assert '_init_pipeline' in BaseInferencer.__abstractmethods__
    assert list(inspect.signature(BaseInferencer._init_pipeline).parameters) == list(
        inspect.signature(SimpleSegInferencer._init_pipeline).parameters) == ['self', 'cfg']


def test_the_pictures_of_a_processor(monkeypatch):
    """``preprocess`` gives them upright and channels first, as one list, and the keys by name."""
    given = {}

    def kept(self, images, return_tensors=None, **options):
        given.update(options, images=images)
        return {}

    assert callable(PilBackend._preprocess)
    monkeypatch.setattr(Kimi_K25ImageProcessorPil, '_preprocess', kept)
    Kimi_K25ImageProcessorPil().preprocess([np.zeros((20, 30, 3), np.uint8)])
    image, = given['images']
    assert image.shape == (3, 20, 30) and given['patch_size'] == 14


@pytest.mark.parametrize('name', ['SingleDeviceStrategy', 'DeepSpeedStrategy'])
def test_strategies_are_found_by_their_registered_names(name):
    from mmengine.registry import STRATEGIES
    assert inspect.isclass(STRATEGIES.get(name))
