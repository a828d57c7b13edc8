"""How the package is cut: one name for one thing, no files that import each other."""
import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / 'simpleseg_mm').rglob('*.py'))
#: names that several files have on purpose: the interface of subcommands, loggers
SHARED = {'main', 'add_arguments', 'LOG'}
#: libraries that not every installation has, or not every system
OPTIONAL = {'bitsandbytes', 'deepspeed', 'peft', 'pyarrow', 'ray', 'resource', 'vllm'}
#: heavy libraries that a stage of the data engine loads in the process that runs it alone, and
#: a command when it runs, not for its --help
LATE = {'simpleseg_mm.annotation': {'torch', 'transformers'},
        'simpleseg_mm.annotation.own_model': {'simpleseg_mm'},  # loads torch
        'simpleseg_mm.commands': {'simpleseg_mm', 'mmengine'},
        'simpleseg_mm.config_keys': {'simpleseg_mm'},  # reads options without a model
        'simpleseg_mm.machine': {'packaging'},  # looks for what is missing
        'simpleseg_mm.models.mllm': {'simpleseg_mm'},  # acceleration is optional
        'simpleseg_mm.models.trainable': {'transformers'}}  # where bitsandbytes is
#: packages whose names are their own for now
OWN_NAMES = ('simpleseg_mm.models', 'simpleseg_mm.acceleration')


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


MODULES = {module_of(path): path for path in FILES}
TREES = {name: ast.parse(path.read_text()) for name, path in MODULES.items()}


def imported(module: str, node: ast.Import | ast.ImportFrom) -> list[str]:
    """Full names of the modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    package = module if MODULES[module].name == '__init__.py' else module.rpartition('.')[0]
    for _ in range(node.level - 1):
        package = package.rpartition('.')[0]
    base = '.'.join(filter(None, (package if node.level else '', node.module)))
    return [f'{base}.{alias.name}' if f'{base}.{alias.name}' in MODULES else base
            for alias in node.names]


def top_level_names(tree: ast.Module) -> set[str]:
    found = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in found if not name.startswith('_')}


def for_types(tree: ast.Module) -> set[int]:
    """What is imported for a checker of types alone."""
    return {id(inner) for node in tree.body if isinstance(node, ast.If)
            and ast.unparse(node.test) == 'TYPE_CHECKING' for inner in ast.walk(node)}


def test_no_two_public_things_have_one_name():
    owners = defaultdict(list)
    for module, tree in TREES.items():
        if module.startswith(OWN_NAMES):
            continue
        for name in top_level_names(tree) - SHARED:
            owners[name].append(module)
    assert not {name: where for name, where in owners.items() if len(where) > 1}


def test_no_files_import_each_other():
    """Also not inside functions, where a circle hides."""
    edges: dict[str, set[str]] = {}
    for module, tree in TREES.items():
        passed_over = for_types(tree)
        edges[module] = {name for node in ast.walk(tree) if id(node) not in passed_over
                         and isinstance(node, (ast.Import, ast.ImportFrom))
                         for name in imported(module, node)
                         if name in MODULES and MODULES[name].name != '__init__.py'}
    reached = {module: set(found) for module, found in edges.items()}
    grown = True
    while grown:
        grown = False
        for module, found in reached.items():
            more = found.union(*(reached[name] for name in found))
            grown |= more != found
            reached[module] = more
    assert not sorted(module for module, found in reached.items() if module in found)


@pytest.mark.parametrize('module', sorted(TREES))
def test_only_optional_libraries_are_imported_inside_functions(module):
    late = {name for place, names in LATE.items() if f'{module}.'.startswith(f'{place}.')
            for name in names}
    for function in ast.walk(TREES[module]):
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for node in ast.walk(function):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    names = {name.partition('.')[0] for name in imported(module, node)}
                    assert names <= OPTIONAL | late, f'{module}, line {node.lineno}'


def test_classes_are_told_by_registry_or_attribute():
    """Not by the text of a class's name: a subclass of another name is one, too."""
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Compare) and all(
                    isinstance(op, (ast.Eq, ast.NotEq)) for op in node.ops):
                sides = [node.left, *node.comparators]
                text = [ast.unparse(side) for side in sides]
                named = any(t.endswith('.__name__') or t.endswith(".get('type')")
                            or t.endswith("['type']") for t in text)
                classes = any(isinstance(side, ast.Constant) and isinstance(side.value, str)
                              and side.value[:1].isupper() for side in sides)
                assert not (named and classes), f'{module}, line {node.lineno}: {text}'
