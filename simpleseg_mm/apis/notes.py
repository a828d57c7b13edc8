"""What says how weights are used, where it came with the weights: settings, never code.

A name in such a file is one of this package's own, and every key and every kind of value is known
beforehand. The registries would import whatever a dotted name leads to, and MMEngine runs the
config that it stores in a checkpoint.
"""
import ast
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ..files import shown
from ..polygon import PolygonCodec
from ..registry import FAMILIES, TRANSFORMS
from ..structures import Prompt

#: characters of a stored config that are read
MAX_STORED_CONFIG = 1 << 20
#: a value -> whether it is allowed
Allowed = Callable[[Any], bool]


def _whole(low: int, high: int = 1 << 31) -> Allowed:
    return lambda value: type(value) is int and low <= value <= high


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _flag(value: Any) -> bool:
    return type(value) is bool


def _text(value: Any) -> bool:
    return type(value) is str


def _one_of(*values) -> Allowed:
    return lambda value: type(value) in (str, bool) and value in values


def _or_none(allowed: Allowed) -> Allowed:
    return lambda value: value is None or allowed(value)


def _numbers(value: Any) -> bool:
    """Lists of numbers, at any depth."""
    return (isinstance(value, (list, tuple)) and all(map(_numbers, value))) or _number(value)


def _plain(value: Any) -> bool:
    """Containers, texts and numbers, without a key that names a type or code."""
    if isinstance(value, Mapping):
        return all(_text(key) and not key.startswith('_') and key not in ('type', 'auto_map')
                   and _plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_plain, value))
    return value is None or type(value) in (str, bool, int, float)


def _plain_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and _plain(value)


def _names(value: Any) -> bool:
    return _text(value) or isinstance(value, (list, tuple)) and all(map(_text, value))


_DTYPE = _one_of('float32', 'bfloat16', 'float16')
_PIXELS = _or_none(_whole(1))
#: keys of an adapter -> what each may be; those of an exported folder
_EXPORTED = dict(dtype=_DTYPE, min_pixels=_PIXELS, max_pixels=_PIXELS,
                 system_prompt=_or_none(_text), chat_template_kwargs=_plain_mapping)
_LORA = dict(
    r=_whole(1), lora_alpha=_number, lora_dropout=_number, target_modules=_names,
    target_parameters=_or_none(_names), exclude_modules=_or_none(_names), bias=_text,
    use_rslora=_flag, use_dora=_flag, init_lora_weights=_one_of(True, False, 'gaussian'),
    layers_to_transform=_or_none(_numbers), layers_pattern=_or_none(_names),
    rank_pattern=_plain_mapping, alpha_pattern=_plain_mapping, fan_in_fan_out=_flag)
#: those of a run
_TRAINED = dict(
    _EXPORTED, pretrained=_or_none(_text), processor=_or_none(_text),
    config=_or_none(lambda value: _plain_mapping(value)),
    init=_one_of('pretrained', 'random'), freeze=_names, train_with_lora=_names,
    lora=_or_none(lambda value: _fits(value, _LORA)),
    quantization=_or_none(_plain_mapping), gradient_checkpointing=lambda v: _flag(v) or _number(v),
    attn_implementation=_one_of('sdpa', 'eager', 'flash_attention_2', 'flash_attention_3',
                                'flex_attention'),
    acceleration=_names)
_GENERATION = dict(
    max_new_tokens=_whole(1, 1 << 16), min_new_tokens=_or_none(_whole(0, 1 << 16)),
    do_sample=_flag, draft=_flag, constrain=_flag, inherit=_flag, num_beams=_whole(1, 64),
    temperature=_number, top_k=_or_none(_whole(0)), top_p=_number, min_p=_or_none(_number),
    repetition_penalty=_number, no_repeat_ngram_size=_whole(0), length_penalty=_number,
    early_stopping=_flag, sequence_bias=_or_none(_numbers), bad_words_ids=_or_none(_numbers),
    suppress_tokens=_or_none(_numbers))
_CODEC = dict(preset=_text, grammar=_text, tokens=_or_none(_number), epsilon=_or_none(_number),
              ring_order=_text, seed=_whole(0))
_QUERY = dict(tasks=_or_none(_plain_mapping), codec=lambda value: _fits(value, _CODEC),
              templates=_text, turns=_whole(1, 1000))


def check_note(note: Any, where: str) -> dict:
    """The note that an exported folder holds (``simpleseg.json``): ``mllm``, ``generation``,
    ``query`` and ``taught`` of :func:`.loading.note_of`, as they are.

    Raises:
        ValueError: one line: it holds anything else.
    """
    _check(note, dict(mllm=_mapping, generation=_mapping, query=_mapping, taught=_taught), where,
           '', required=('mllm', 'generation', 'query'))
    _check_adapter(note['mllm'], _EXPORTED, where, 'mllm')
    _check(note['generation'], _GENERATION, where, 'generation')
    _check_query(note['query'], where, 'query')
    return note


def check_stored(config: Mapping, where: str) -> None:
    """Of the config that a checkpoint holds, what is built from it: the model, the query and the
    pipeline of its test set, and the visualizer.

    Raises:
        ValueError: one line: it names what is not this package's own.
    """
    model = config.get('model')
    _check(model, dict(type=_one_of('SimpleSeg'), mllm=_mapping, generation=_or_none(_mapping),
                       loss_chunk=_whole(1), data_preprocessor=_never, init_cfg=_never),
           where, 'model', required=('type', 'mllm'))
    _check_adapter(model['mllm'], _TRAINED, where, 'model.mllm')
    _check(model.get('generation') or {}, _GENERATION, where, 'model.generation')
    loader = config.get('test_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    if isinstance(dataset, Mapping):
        if dataset.get('query'):
            _check_query(dataset['query'], where, 'test_dataloader.dataset.query')
        for step in dataset.get('pipeline') or ():
            kind = step.get('type') if isinstance(step, Mapping) else None
            if not (_text(kind) and kind in TRANSFORMS.module_dict
                    and _plain({key: step[key] for key in step if key != 'type'})):
                _refuse(where, 'test_dataloader.dataset.pipeline', step,
                        f'one of {sorted(TRANSFORMS.module_dict)}')
    if not (config.get('taught') is None or _taught(config['taught'])):
        _refuse(where, 'taught', config['taught'], 'lists of sets and prompts')
    visualizer = config.get('visualizer')
    if visualizer is not None and not (isinstance(visualizer, Mapping) and _one_of(
            'SimpleSegVisualizer')(visualizer.get('type'))):
        _refuse(where, 'visualizer', visualizer, 'a SimpleSegVisualizer')


def parse_config(text: str, where: str) -> dict[str, Any]:
    """Settings of a config as MMEngine writes it into a checkpoint: ``name = value``, where values
    are numbers, texts, lists, tuples and ``dict(...)`` of such. Nothing is run.

    Raises:
        ValueError: one line: it holds anything else.
    """
    if not isinstance(text, str) or len(text) > MAX_STORED_CONFIG:
        raise ValueError(f'the config in {where} is no text of at most {MAX_STORED_CONFIG} '
                         'characters; give the config file too')
    try:
        return dict(_assigned(ast.parse(text)))
    except (SyntaxError, TypeError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f'the config in {where} is not plain settings and is not run '
                         f'({" ".join(str(error).split())[:200] or "nested too deep"}); '
                         'give the config file too') from None


def _assigned(module: ast.Module) -> Iterator[tuple[str, Any]]:
    for line in module.body:
        if not (isinstance(line, ast.Assign) and len(line.targets) == 1
                and isinstance(line.targets[0], ast.Name)):
            raise ValueError(f'line {line.lineno} is no assignment to one name')
        yield line.targets[0].id, _literal(line.value)


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        if not (isinstance(node.func, ast.Name) and node.func.id == 'dict'
                and len(node.args) <= 1 and all(word.arg for word in node.keywords)):
            raise ValueError(f'line {node.lineno} calls something')
        given = _literal(node.args[0]) if node.args else {}
        if not isinstance(given, dict):
            raise ValueError(f'line {node.lineno} calls something')
        return {**given, **{word.arg: _literal(word.value) for word in node.keywords}}
    if isinstance(node, (ast.List, ast.Tuple)):
        items = [_literal(item) for item in node.elts]
        return items if isinstance(node, ast.List) else tuple(items)
    if isinstance(node, ast.Dict) and None not in node.keys:
        return {_literal(key): _literal(value) for key, value in zip(node.keys, node.values)}
    if isinstance(node, ast.Name) and node.id in ('inf', 'nan'):  # as Python writes such numbers
        return float(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        if isinstance(value := _literal(node.operand), (int, float)):
            return -value
    if isinstance(node, ast.Constant) and isinstance(node.value,
                                                     (str, int, float, bool, type(None))):
        return node.value
    raise ValueError(f'line {getattr(node, "lineno", "?")} holds a {type(node).__name__}')


def _check_adapter(mllm: Any, known: dict[str, Allowed], where: str, place: str) -> None:
    kind = mllm.get('type') if isinstance(mllm, Mapping) else None
    families = FAMILIES.module_dict
    if not (_text(kind) and kind in families):
        _refuse(where, f'{place}.type', kind, f'one of {", ".join(sorted(families))}')
    _check(mllm, dict(known, type=_text), where, place)


def _check_query(query: Any, where: str, place: str) -> None:
    _check(query, dict(_QUERY, type=_one_of('FormatQuery')), where, place,
           required=('type', 'codec'))
    try:
        PolygonCodec(**query['codec'])
    except (TypeError, ValueError) as error:
        raise ValueError(f'{where} is refused: {place}.codec: {error}') from None


def _taught(value: Any) -> bool:
    return (isinstance(value, Mapping) and set(value) <= {'sets', 'prompts', 'outlines'}
            and _flag(value.get('outlines', True))
            and all(isinstance(names, (list, tuple)) and all(map(_text, names))
                    for key, names in value.items() if key != 'outlines')
            and set(value.get('prompts', ())) <= set(Prompt.KINDS))


def _mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _never(value: Any) -> bool:
    return value is None


def _fits(content: Any, known: dict[str, Allowed]) -> bool:
    return isinstance(content, Mapping) and all(
        key in known and known[key](value) for key, value in content.items())


def _check(content: Any, known: dict[str, Allowed], where: str, place: str,
           required: tuple[str, ...] = ()) -> None:
    if not isinstance(content, Mapping):
        _refuse(where, place or 'it', content, f'settings of {sorted(known)}')
    if missing := sorted(set(required) - set(content)):
        raise ValueError(f'{where} is refused: {place or "it"} lacks {missing}')
    for key, value in content.items():
        if key not in known:
            raise ValueError(f'{where} is refused: {place or "it"} has the key {shown(key)}; '
                             f'known are {", ".join(sorted(known))}')
        if not known[key](value):
            _refuse(where, f'{place}.{key}'.lstrip('.'), value, 'what this package writes there')


def _refuse(where: str, place: str, value: Any, allowed: str) -> None:
    raise ValueError(f'{where} is refused: {place} is {shown(value)}, and may be {allowed}. Where '
                     'you know what it asks for, name it in a config file of your own and give '
                     'that too')
