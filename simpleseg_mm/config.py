"""Reading a config file for a tool: what is wrong with it is said in one line."""
import difflib
import os.path as osp
import traceback
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from .config_keys import check_config, check_options

#: of default_hooks, those that MMEngine knows itself
_OPTIONAL_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler',
                   'checkpoint')
_PACKAGE = Path(__file__).resolve().parent


def accumulated_batches(cfg: Config) -> int:
    """Batches of a process whose gradients the config's ``optim_wrapper`` adds to one update."""
    return (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)


def config_root() -> Path:
    """The folder that holds ``configs``: the repository, or what an installation copied.

    Raises:
        FileNotFoundError: neither is there.
    """
    for root in (_PACKAGE.parent, _PACKAGE / '.mim'):
        if (root / 'configs' / 'simpleseg').is_dir():
            return root
    raise FileNotFoundError(f'{_PACKAGE} has no configs, neither beside it nor in .mim: install '
                            'simpleseg_mm again')


def find_config(name: str) -> str:
    """The file that a config is named by: a path, or a name of one of this package's configs.

    ``qwen25vl_sft_refcoco``, with ``.py`` or without, or its last folders too
    (``ablations/gspo_group-4.py``, ``configs/simpleseg/qwen25vl_sft_refcoco.py``), from any
    folder. Pieces of configs are named with their ``_base_``. A file that is there is itself.

    Raises:
        FileNotFoundError: there is none of that name; the nearest are named.
        ValueError: it is a folder.
    """
    if osp.isfile(name):
        return name
    known = _packaged_configs()
    asked = '/' + name.removesuffix('.py')
    if found := [path for short, path in known.items() if f'/{short}'.endswith(asked)
                 and ('_base_' in name or not short.startswith('configs/_base_'))]:
        return str(min(found, key=lambda path: len(path.parts)))
    if osp.isdir(name):
        names = sorted(path.name for path in Path(name).glob('*.py'))
        raise ValueError(f'{name} is a folder, not a config: give '
                         + (f"one of its files: {', '.join(names[:8])}" if names else
                            'a .py file, or a name of configs/simpleseg/README.md'))
    near = nearest_configs(name)
    raise FileNotFoundError(f'no config {name}' + (
        f": did you mean {' or '.join(near)}?" if near else
        ': give a path, or a name of configs/simpleseg/README.md'))


def nearest_configs(name: str) -> list[str]:
    """Up to two configs with nearly this name: of this package, and files of the same folder."""
    by_stem = {Path(short).name: Path(short).name for short in _packaged_configs()
               if '_base_' not in short}
    by_stem |= {path.stem: str(path) for path in Path(osp.dirname(name) or '.').glob('*.py')}
    stem = Path(name.removesuffix('.py')).name
    return [by_stem[one] for one in difflib.get_close_matches(stem, by_stem, 2, 0.7)]


def _packaged_configs() -> dict[str, Path]:
    """``configs/FOLDERS/NAME`` -> the file, of this package's configs."""
    root = config_root()
    return {path.relative_to(root).with_suffix('').as_posix(): path
            for path in sorted((root / 'configs').rglob('*.py'))}


def _remedy(error: Exception) -> str:
    """What to do about a module that is not found, or a ``_base_`` of the package's name."""
    if isinstance(error, ImportError) and 'Failed to import' in str(error):
        return '. Python finds a module of your own by PYTHONPATH=ITS_FOLDER'
    if not isinstance(error, FileNotFoundError) or not error.filename:
        return ''
    asked = Path(error.filename).with_suffix('.py')
    found = [path for path in _packaged_configs().values() if path.name == asked.name]
    if not found:
        return ''
    path = max(found, key=lambda path: path.parent.name == asked.parent.name)
    return f". Write the package's config by its path: _base_ = '{path}'"


def read_config(path: str, options: dict | None = None, read: Sequence[str] = (),
                ours: bool = True, said: dict[str, str] | None = None,
                needs: Sequence[str] = (), checked: bool = True) -> Config:
    """A config that a user names, with the settings of ``--cfg-options``: the one way to read it.

    Args:
        path: file or name, see :func:`find_config`.
        options: of the command line.
        read: names in the config that the tool reads beside a runner's.
        ours: whether this package's modules that ``custom_imports`` names are imported as well as
            others'. Without, the registries import a part of the package when it is first built
            from: what is scored without a model loads none.
        said: settings that arguments of the tool say, such as ``{'load_from': 'CHECKPOINT'}``.
        needs: names that the tool cannot do without, such as ``('model', 'train_dataloader')``.
        checked: whether settings are held to what they are given to, see
            :func:`~.config_keys.check_config`; without ``ours`` they are not.

    Raises:
        FileNotFoundError, ValueError: in one line, it is not there, no config, or not valid; or a
            setting is said twice.
    """
    for key in options or {}:
        if argument := next((said[one] for one in said or {} if f'{key}.'.startswith(f'{one}.')),
                            None):
            raise ValueError(f'--cfg-options {key} is said by {argument} here: give that alone')
    if path.endswith(('.pth', '.pt', '.safetensors')):
        raise ValueError(f'{path} is a checkpoint: give the config first, then the checkpoint')
    path = find_config(path)
    if not path.endswith(('.py', '.json', '.yaml', '.yml')):
        raise ValueError(f'{path} is no config: give a .py file')
    try:
        cfg = Config.fromfile(path, import_custom_modules=False)
        if not any(key.startswith('custom_imports') for key in options or {}):
            _import_modules(cfg, ours)
    except Exception as error:  # a config is a program
        line = next((f', line {frame.lineno}' for frame in
                     reversed(traceback.extract_tb(error.__traceback__))
                     if frame.filename == '<string>' or osp.exists(path)
                     and osp.exists(frame.filename) and osp.samefile(frame.filename, path)), '')
        raise ValueError(f'{path}{line} is no valid config: {type(error).__name__}: '
                         f'{" ".join(str(error).split())[:300]}{_remedy(error)}') from None
    if options:
        check_options(cfg, options, read)
        try:
            cfg.merge_from_dict(options)
        except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(f'--cfg-options {" ".join(options)} do not fit {path}: '
                             f'{" ".join(str(error).split())[:300]}') from None
        if any(key.startswith('custom_imports') for key in options):
            try:
                _import_modules(cfg, ours)
            except Exception as error:  # a module is a program
                raise ValueError(f'--cfg-options custom_imports: {type(error).__name__}: '
                                 f'{" ".join(str(error).split())[:300]}') from None
    if lacking := [name for name in needs if not cfg.get(name)]:
        raise ValueError(f'{path} has no {", ".join(lacking)}: give a config that has, such as '
                         'nano_sft_refshapes, or a child of one (_base_)')
    if ours and checked:
        check_config(cfg, read)
    if 'vis_backends' in cfg and cfg.get('visualizer'):
        cfg.visualizer.vis_backends = cfg.vis_backends
    hooks = cfg.get('default_hooks') or {}
    for name in [name for name, hook in hooks.items() if hook is None]:
        if name not in _OPTIONAL_HOOKS:  # MMEngine takes None for its own alone
            del hooks[name]
    return cfg


def _import_modules(cfg: Config, ours: bool) -> None:
    """The modules that ``custom_imports`` names; this package's where they are asked for."""
    asked = cfg.get('custom_imports') or {}
    names = asked.get('imports') or []
    names = [name for name in ([names] if isinstance(names, str) else names)
             if ours or name.partition('.')[0] != _PACKAGE.name]
    import_modules_from_strings(names, asked.get('allow_failed_imports', False))
