"""Settings that nothing reads, named with the nearest right one before anything is loaded."""
import difflib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mmengine.config import Config
from mmengine.registry import EVALUATOR, VISBACKENDS, init_default_scope
from torch.utils.data import DataLoader

from . import registry as ours

#: arguments of MMEngine's ``Runner``, which is not imported here: it loads transformers
RUNNER = ('model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader',
          'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'optim_wrapper', 'param_scheduler',
          'val_evaluator', 'test_evaluator', 'default_hooks', 'custom_hooks', 'data_preprocessor',
          'load_from', 'resume', 'launcher', 'env_cfg', 'log_processor', 'log_level', 'visualizer',
          'default_scope', 'randomness', 'experiment_name')
#: keys of a config that MMEngine's runners, the tools or config files themselves read
READ = {*RUNNER, 'compile', 'custom_imports', 'find_unused_parameters', 'model_wrapper_cfg',
        'runner_type', 'strategy', 'vis_backends'}
#: those that the data engine reads, and all that tools read beside a runner
READ_BY_ANNOTATE = ('order', 'reader', 'stages')
READ_BY_OTHER_TOOLS = (*READ_BY_ANNOTATE, 'retention_dataloader', 'retention_evaluator')
#: registries whose types a config of training names
_REGISTRIES = (
    ours.MODELS, ours.FAMILIES, ours.DATASETS, ours.TRANSFORMS, ours.DATA_SAMPLERS,
    ours.FUNCTIONS, ours.METRICS, ours.HOOKS, ours.LOOPS, ours.OPTIM_WRAPPERS, ours.OPTIMIZERS,
    ours.OPTIM_WRAPPER_CONSTRUCTORS, ours.PARAM_SCHEDULERS, ours.STRATEGIES, ours.VISUALIZERS,
    VISBACKENDS, ours.LOG_PROCESSORS, ours.REWARDS, ours.ROLLOUTS, EVALUATOR)
#: what MMEngine takes out of a node before it builds it
_TAKEN_OUT = {'type', '_scope_', 'priority', 'constructor', 'paramwise_cfg', 'optimizer',
              'convert_to_iter_based', 'dataset', 'sampler', 'batch_sampler', 'collate_fn',
              'num_batch_per_epoch'}


def check_options(cfg: Config, options: dict, read: Sequence[str] = ()) -> None:
    """Refuse ``--cfg-options`` that would change nothing; before they are merged.

    Args:
        cfg: the config as its file gives it.
        options: dotted key -> value.
        read: names that the tool reads beside a runner's.

    Raises:
        ValueError: a key begins with a name that the config does not have and nothing reads, or
            with one that the config has used already; or it is new beside one of nearly its name.
    """
    faults = []
    known = READ.union(read)
    for key in options:
        first, *rest = key.split('.')
        if first not in known and first not in cfg:
            faults.append(f'{key}: nothing reads {first}'
                          + (_of_the_loop(cfg, first) or _nearest(first, known)))
        elif first not in known:
            places = [place for place, value in _leaves(cfg) if place.partition('.')[0] in known
                      and value == cfg[first]]
            faults.append(f'{key}: {first} is a variable of the config, which has been used '
                          'already; set ' + (' and '.join(places[:4]) or 'what was made of it'))
        elif hint := _new_beside(cfg.get(first), rest):
            faults.append(f'{key}: there is no such setting{hint}')
    if faults:
        raise ValueError('--cfg-options ' + '; '.join(faults))


def check_config(cfg: Config) -> None:
    """Refuse settings that nothing reads, and types that do not exist.

    A variable of a config file is legal; one that nothing uses and that has nearly the name of a
    setting, or that of one of ``train_cfg``, is taken for a typo. Arguments are held to the
    signature of the class or function that ``type`` names; where it passes ``**kwargs`` on, those
    of its parents count, and only what is nearly one of them is refused.

    Raises:
        ValueError: all that was found, in one line.
    """
    init_default_scope(cfg.get('default_scope', 'simpleseg_mm'))
    faults = []
    for key, value in cfg.items():
        if key in READ or key.rstrip('0123456789_') in READ:
            continue
        near = difflib.get_close_matches(key, READ, 1, 0.88)
        hint = _of_the_loop(cfg, key) or near and f'; did you mean {near[0]}?'
        if hint and not any(used == value for place, used in _nodes(cfg)
                            if place.partition('.')[0] != key):
            faults.append(f'{key}: nothing reads it{hint}')
    for place, node in _nodes(cfg):
        if place.partition('.')[0] in READ and isinstance(node, dict):
            faults += _faults_of(place, node)
    if faults:
        raise ValueError('Config: ' + '; '.join(dict.fromkeys(faults)))


def _faults_of(place: str, node: dict) -> Iterator[str]:
    name = place.rpartition('.')[2]
    if 'type' in node:
        targets, title = _targets(node['type']), node['type']
        if not targets:
            if _is_built(place):
                names = {n for registry in _REGISTRIES for n in _all_names(registry)}
                yield f"{place}.type: there is no {title}{_nearest(str(title), names)}"
            return
    elif name.endswith('_dataloader') and 'dataset' in node:
        targets, title = [DataLoader], 'a dataloader'
    else:
        return
    known, closed = set(), True
    for target in targets:
        names, ends = _arguments(target)
        known, closed = known | names, closed and ends
    for key in node:
        if key in known or key in _TAKEN_OUT or (key in ('weight', 'name') and _lists_rewards(
                place)):
            continue
        near = _nearest(key, known)
        if closed or near:
            title = title if isinstance(title, str) else title.__name__
            yield f'{place}.{key}: {title} has no such setting{near}'


def _is_built(place: str) -> bool:
    """Whether a node with a type at this place is built from a registry for certain."""
    first, *rest = place.split('.')
    last = rest[-1] if rest else first
    if first in ('default_hooks', 'custom_hooks', 'param_scheduler'):
        return len(rest) <= 1
    if first.endswith('_evaluator'):
        return len(rest) <= 1
    if last.isdigit():
        last = rest[-2] if len(rest) > 1 else first
        return last in ('vis_backends', 'pipeline', 'datasets', 'sources', 'rewards')
    return not rest or last in ('dataset', 'sampler', 'collate_fn', 'optimizer', 'mllm', 'reward',
                                'rollout', 'query')


def _lists_rewards(place: str) -> bool:
    """Whether a node is an item of a list ``rewards``."""
    *_, name, number = ('', *place.split('.'))
    return name == 'rewards' and number.isdigit()


def _targets(kind: Any) -> list[Callable]:
    """What a type may stand for: the class itself, or those of its name in all registries."""
    if not isinstance(kind, str):
        return [kind] if callable(kind) else []
    found = []
    for registry in _REGISTRIES:
        try:
            target = registry.get(kind)
        except Exception:  # of another project's scope, which may not be importable here
            continue
        if target is not None and registry is ours.FAMILIES:
            from .models import MLLM as target  # whose family the type names; loads transformers
        if target is not None and target not in found:
            found.append(target)
    return found


def _arguments(target: Callable) -> tuple[set[str], bool]:
    """Names that a class or function takes; whether these are all."""
    if not inspect.isclass(target):
        try:
            parameters = inspect.signature(target).parameters.values()
        except (TypeError, ValueError):
            return set(), False
        return ({p.name for p in parameters},
                all(p.kind is not p.VAR_KEYWORD for p in parameters))
    names: set[str] = set()
    passes_on = False  # a parent may be called with some of its arguments: then none is certain
    for cls in target.__mro__:
        init = vars(cls).get('__init__')
        if init is None:
            continue
        try:
            parameters = inspect.signature(init).parameters.values()
        except (TypeError, ValueError):
            return names, False
        if cls is object:
            break
        names |= {p.name for p in parameters if p.kind is not p.VAR_KEYWORD}
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
        passes_on = True
    return names, not passes_on


def _new_beside(node: Any, rest: Sequence[str]) -> str:
    """The nearest name where a dotted key first leaves what is there; '' where none is near."""
    for name in rest:
        if isinstance(node, (list, tuple)) and name.isdigit() and int(name) < len(node):
            node = node[int(name)]
        elif isinstance(node, dict) and name in node:
            node = node[name]
        else:
            # where a type is named, its signature tells
            return _nearest(name, node) if isinstance(node, dict) and 'type' not in node else ''
    return ''


def _of_the_loop(cfg: Config, name: str) -> str:
    """A hint where a name of the config's top is one of the training loop's settings."""
    return f'; did you mean train_cfg.{name}?' if name in (cfg.get('train_cfg') or {}) else ''


def _nearest(name: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, map(str, names), 1, 0.8)
    return f'; did you mean {near[0]}?' if near else ''


def _all_names(registry) -> set[str]:
    names: set[str] = set()
    current: Any | None = registry
    while current is not None:
        names |= set(current.module_dict)
        current = current.parent
    return names


def _nodes(value: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """All values of nested dictionaries and lists, with their dotted places."""
    items = (value.items() if isinstance(value, (dict, Config)) else
             enumerate(value) if isinstance(value, (list, tuple)) else ())
    for key, item in items:
        here = f'{place}.{key}' if place else str(key)
        yield here, item
        yield from _nodes(item, here)


def _leaves(cfg: Config) -> Iterator[tuple[str, Any]]:
    return ((place, value) for place, value in _nodes(cfg) if '.' in place)
