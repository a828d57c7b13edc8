"""Settings that nothing reads, named with the nearest right one before anything is loaded."""
import difflib
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from mmengine.config import Config
from mmengine.registry import EVALUATOR, Registry, init_default_scope
from torch import Tensor
from torch.utils.data import DataLoader

from . import registry as ours
from .config_values import faults_of_values, settings_above
from .files import shown

#: arguments of MMEngine's ``Runner``, which is not imported here: it loads transformers
RUNNER = ('model', 'work_dir', 'train_dataloader', 'val_dataloader', 'test_dataloader',
          'train_cfg', 'val_cfg', 'test_cfg', 'auto_scale_lr', 'optim_wrapper', 'param_scheduler',
          'val_evaluator', 'test_evaluator', 'default_hooks', 'custom_hooks', 'data_preprocessor',
          'load_from', 'resume', 'launcher', 'env_cfg', 'log_processor', 'log_level', 'visualizer',
          'default_scope', 'randomness', 'experiment_name')


def randomness(seed: int | None = None, deterministic: bool = False,
               diff_rank_seed: bool = False) -> None:
    """What MMEngine's ``set_random_seed`` takes, for the same reason."""


#: keys of a config that MMEngine's runners, the tools or config files themselves read
READ = {*RUNNER, 'compile', 'custom_imports', 'find_unused_parameters', 'model_wrapper_cfg',
        'runner_type', 'strategy', 'vis_backends'}
#: names whose values are dictionaries of settings, and lists of such; of the first three, which
#: of MMEngine's names end so. None stands for nothing, and one dictionary for a list of it
_DICTS = ('_dataloader', '_cfg', '_wrapper', 'model', 'auto_scale_lr', 'default_hooks',
          'data_preprocessor', 'log_processor', 'visualizer', 'randomness', 'strategy', 'reader',
          'stages')
_LISTS = ('_evaluator', 'custom_hooks', 'param_scheduler', 'vis_backends')
#: those that the data engine reads, and all that tools read beside a runner
READ_BY_ANNOTATE = ('order', 'reader', 'stages')
READ_BY_OTHER_TOOLS = (*READ_BY_ANNOTATE, 'retention_dataloader', 'retention_evaluator')
#: registries whose types a config of training names
_REGISTRIES = (
    ours.MODELS, ours.FAMILIES, ours.DATASETS, ours.TRANSFORMS, ours.DATA_SAMPLERS,
    ours.FUNCTIONS, ours.METRICS, ours.HOOKS, ours.LOOPS, ours.OPTIM_WRAPPERS, ours.OPTIMIZERS,
    ours.OPTIM_WRAPPER_CONSTRUCTORS, ours.PARAM_SCHEDULERS, ours.STRATEGIES, ours.VISUALIZERS,
    ours.VISBACKENDS, ours.LOG_PROCESSORS, ours.REWARDS, ours.ROLLOUTS, EVALUATOR)
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
            with one that the config has used already; or it is new beside one of nearly its name;
            or text takes the place of a number where no signature tells what is allowed.
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
        elif isinstance(options[key], str) and (number := _number_at(cfg, key)) is not None:
            faults.append(f'{key} is {shown(options[key], 60)}; it was {number}: give a number')
    if faults:
        raise ValueError('--cfg-options ' + '; '.join(faults))


def check_config(cfg: Config, read: Sequence[str] = ()) -> None:
    """Refuse settings that nothing reads, types that do not exist, and values of another kind.

    A variable of a config file is legal; one that nothing uses and that has nearly the name of a
    setting, or that of one of ``train_cfg``, is taken for a typo. Arguments are held to the
    signature of the class or function that ``type`` names; where it passes ``**kwargs`` on, those
    of its parents count, and only what is nearly one of them is refused. Where the signature takes
    numbers alone, text and lists are refused.

    Args:
        cfg: the config.
        read: names that a tool reads beside a runner's.

    Raises:
        ValueError: all that was found, in one line.
    """
    known = READ.union(read)
    faults = [fault for key, value in cfg.items() if key in known
              for fault in _shape_of(key, value)] or [*faults_of_values(cfg)]
    if faults:
        raise ValueError('Config: ' + '; '.join(faults))
    init_default_scope(cfg.get('default_scope', 'simpleseg_mm'))
    for key, value in cfg.items():
        if key in known or key.rstrip('0123456789_') in READ:
            continue
        near = difflib.get_close_matches(key, READ, 1, 0.88)
        hint = _of_the_loop(cfg, key) or near and f'; did you mean {near[0]}?'
        if hint and not any(used == value for place, used in _nodes(cfg)
                            if place.partition('.')[0] != key):
            faults.append(f'{key}: nothing reads it{hint}')
    for place, node in _nodes(cfg):
        if place.partition('.')[0] in known and isinstance(node, dict):
            faults += _faults_of(place, node)
    if faults:
        raise ValueError('Config: ' + '; '.join(dict.fromkeys(faults)))


def _shape_of(key: str, value: Any) -> Iterator[str]:
    """What is wrong with the kind of a value at the config's top."""
    if value is None:
        return
    if key.endswith(_DICTS) and not isinstance(value, dict):
        yield f'{key} is {shown(value, 60)}; give settings, {key}=dict(...)'
    elif key.endswith(_LISTS):
        items = value if isinstance(value, (list, tuple)) else [value]
        if any(isinstance(item, (str, int, float)) for item in items):
            yield (f'{key} is {shown(value, 60)}; give a list of settings, '
                   f'{key}=[dict(type=...)], in a config file')


def _faults_of(place: str, node: dict) -> Iterator[str]:
    name = place.rpartition('.')[2]
    if place == 'randomness':
        targets, title = [randomness], place
    elif 'type' in node:
        registries = (ours.STAGES, ) if _is_of_annotation(place) else _REGISTRIES
        targets, title = _targets(node['type'], registries), node['type']
        if not targets:
            if _is_built(place):
                names = {n for registry in registries for n in _all_names(registry)}
                yield (f'{place}.type: there is no {title}'
                       + (_nearest(str(title), names, 0.6) or _all_of(place)))
            return
    elif name.endswith('_dataloader') and 'dataset' in node:
        targets, title = [DataLoader], 'a dataloader'
    else:
        return
    known, closed = {}, True
    for target in targets:
        names, ends = _arguments(target)
        known = {key: [*known.get(key, ()), *([names[key]] if key in names else ())]
                 for key in (*known, *names)}
        closed = closed and ends
    title = title if isinstance(title, str) else title.__name__
    for key in node:
        if (isinstance(node[key], (str, list, tuple, dict)) and known.get(key)
                and all(map(_takes_numbers, known[key]))):
            yield f'{place}.{key} is {shown(node[key], 60)}; {title} takes a number'
            continue
        if key in known or key in _TAKEN_OUT or (key in ('weight', 'name') and _lists_rewards(
                place)):
            continue
        near = _nearest(key, known)
        if closed or near:
            yield f'{place}.{key}: {title} has no such setting{near}'


def _is_built(place: str) -> bool:
    """Whether a node with a type at this place is built from a registry for certain."""
    first, *rest = place.split('.')
    last = rest[-1] if rest else first
    if _is_of_annotation(place):
        return len(rest) == (first == 'stages')
    if first in ('default_hooks', 'custom_hooks', 'param_scheduler'):
        return len(rest) <= 1
    if first.endswith('_evaluator'):
        return len(rest) <= 1
    if last.isdigit():
        last = rest[-2] if len(rest) > 1 else first
        return last in ('vis_backends', 'pipeline', 'datasets', 'sources', 'rewards')
    return not rest or last in ('dataset', 'sampler', 'collate_fn', 'optimizer', 'mllm', 'reward',
                                'rollout', 'query')


def _is_of_annotation(place: str) -> bool:
    """Whether a node is the reader or a stage of the data engine."""
    return place.partition('.')[0] in READ_BY_ANNOTATE


def _all_of(place: str) -> str:
    """All families, where one is asked for."""
    return (f'; there are {", ".join(sorted(_all_names(ours.FAMILIES)))}'
            if place == 'model.mllm' else '')


def _lists_rewards(place: str) -> bool:
    """Whether a node is an item of a list ``rewards``."""
    *_, name, number = ('', *place.split('.'))
    return name == 'rewards' and number.isdigit()


def _targets(kind: Any, registries: Sequence[Registry]) -> list[Callable]:
    """What a type may stand for: the class itself, or those of its name in the registries."""
    if not isinstance(kind, str):
        return [kind] if callable(kind) else []
    found = []
    for registry in registries:
        try:
            target = registry.get(kind)
        except Exception:  # of another project's scope, which may not be importable here
            continue
        if target is not None and registry is ours.FAMILIES:
            from .models import MLLM as target  # whose family the type names; loads transformers
        if target is not None and target not in found:
            found.append(target)
    return found


def _parameters(target: Callable) -> list[inspect.Parameter]:
    """Raises TypeError or ValueError where Python does not know them."""
    try:
        return [*inspect.signature(target, eval_str=True).parameters.values()]
    except (NameError, SyntaxError, AttributeError):  # of a name that is imported for types alone
        return [*inspect.signature(target).parameters.values()]


def _takes_numbers(annotation: Any) -> bool:
    """Whether an argument takes numbers, and neither text nor anything else."""
    kinds = {*(get_args(annotation) if get_origin(annotation) in (Union, UnionType)
               else [annotation])} - {NoneType, bool, Tensor}
    return bool(kinds) and kinds <= {int, float}


def _arguments(target: Callable) -> tuple[dict[str, Any], bool]:
    """Names that a class or function takes, with their annotations; whether these are all."""
    if not inspect.isclass(target):
        try:
            parameters = _parameters(target)
        except (TypeError, ValueError):
            return {}, False
        return ({p.name: p.annotation for p in parameters},
                all(p.kind is not p.VAR_KEYWORD for p in parameters))
    names: dict[str, Any] = {}
    passes_on = False  # a parent may be called with some of its arguments: then none is certain
    for cls in target.__mro__:
        init = vars(cls).get('__init__')
        if init is None:
            continue
        try:
            parameters = _parameters(init)
        except (TypeError, ValueError):
            return names, False
        if cls is object:
            break
        names = {p.name: p.annotation for p in parameters
                 if p.kind is not p.VAR_KEYWORD} | names
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


def _number_at(cfg: Config, key: str) -> int | float | None:
    """The number that a dotted key names, where its node has no type."""
    node = settings_above(cfg, key)
    value = None if 'type' in node else node.get(key.rpartition('.')[2])
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _of_the_loop(cfg: Config, name: str) -> str:
    """A hint where a name of the config's top is one of the training loop's settings."""
    loop = cfg.get('train_cfg')
    return f'; did you mean train_cfg.{name}?' if isinstance(loop, dict) and name in loop else ''


def _nearest(name: str, names: Iterable[str], least: float = 0.8) -> str:
    near = difflib.get_close_matches(name, map(str, names), 1, least)
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
