"""What says how weights are used, where it came with the weights: settings, never code.

A name in such a file is one of this package's own, and every key and every kind of value is known
beforehand. The registries would import whatever a dotted name leads to, and MMEngine runs the
config that it stores in a checkpoint.
"""
import ast
from collections.abc import Iterator, Mapping
from typing import Any

from ..exported import (EXPORTED, GENERATION, are_names, are_numbers, check_adapter,
                        check_exported, check_query, check_settings, fits_settings, is_flag,
                        is_mapping, is_none, is_number, is_plain, is_plain_mapping, is_taught,
                        is_text, one_of, or_none, refuse, whole_number)
from ..registry import FAMILIES, TRANSFORMS

#: characters of a stored config that are read
MAX_STORED_CONFIG = 1 << 20
_LORA = dict(
    r=whole_number(1), lora_alpha=is_number, lora_dropout=is_number, target_modules=are_names,
    target_parameters=or_none(are_names), exclude_modules=or_none(are_names), bias=is_text,
    use_rslora=is_flag, use_dora=is_flag, init_lora_weights=one_of(True, False, 'gaussian'),
    layers_to_transform=or_none(are_numbers), layers_pattern=or_none(are_names),
    rank_pattern=is_plain_mapping, alpha_pattern=is_plain_mapping, fan_in_fan_out=is_flag)
#: those of a run
_TRAINED = dict(
    EXPORTED, pretrained=or_none(is_text), processor=or_none(is_text),
    config=or_none(lambda value: is_plain_mapping(value)),
    init=one_of('pretrained', 'random'), freeze=are_names, train_with_lora=are_names,
    lora=or_none(lambda value: fits_settings(value, _LORA)),
    quantization=or_none(is_plain_mapping),
    gradient_checkpointing=lambda value: is_flag(value) or is_number(value),
    attn_implementation=one_of('sdpa', 'eager', 'flash_attention_2', 'flash_attention_3',
                                'flex_attention'),
    acceleration=are_names)


def check_note(note: Any, where: str) -> dict:
    """:func:`~simpleseg_mm.exported.check_exported`, for those who build the adapter that it
    names."""
    return check_exported(note, where, FAMILIES.module_dict)


def check_stored(config: Mapping, where: str) -> None:
    """Of the config that a checkpoint holds, what is built from it: the model, the query and the
    pipeline of its test set, and the visualizer.

    Raises:
        ValueError: one line: it names what is not this package's own.
    """
    model = config.get('model')
    check_settings(model, dict(
        type=one_of('SimpleSeg'), mllm=is_mapping, generation=or_none(is_mapping),
        consensus=or_none(is_plain_mapping), second_look=or_none(is_plain_mapping),
        loss_chunk=whole_number(1), data_preprocessor=is_none, init_cfg=is_none),
        where, 'model', required=('type', 'mllm'))
    check_adapter(model['mllm'], _TRAINED, where, 'model.mllm', FAMILIES.module_dict)
    check_settings(model.get('generation') or {}, GENERATION, where, 'model.generation')
    loader = config.get('test_dataloader')
    dataset = loader.get('dataset') if isinstance(loader, Mapping) else None
    if isinstance(dataset, Mapping):
        if dataset.get('query'):
            check_query(dataset['query'], where, 'test_dataloader.dataset.query')
        for step in dataset.get('pipeline') or ():
            kind = step.get('type') if isinstance(step, Mapping) else None
            if not (is_text(kind) and kind in TRANSFORMS.module_dict
                    and is_plain({key: step[key] for key in step if key != 'type'})):
                refuse(where, 'test_dataloader.dataset.pipeline', step,
                       f'one of {sorted(TRANSFORMS.module_dict)}')
    if not (config.get('taught') is None or is_taught(config['taught'])):
        refuse(where, 'taught', config['taught'], 'lists of sets and prompts')
    visualizer = config.get('visualizer')
    if visualizer is not None and not (isinstance(visualizer, Mapping) and one_of(
            'SimpleSegVisualizer')(visualizer.get('type'))):
        refuse(where, 'visualizer', visualizer, 'a SimpleSegVisualizer')


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
