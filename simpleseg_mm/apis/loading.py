"""Which config and which weights a user means: a config, a checkpoint, a folder, a name."""
import json
import os.path as osp
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace

from mmengine.config import Config
from mmengine.fileio import load
from mmengine.runner import load_state_dict
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from ..config import config_root, nearest_configs, read_config
from ..engine.checkpoint_file import read_checkpoint
from ..engine.launch import find_checkpoint, names_run
from ..engine.hooks import GrammarHook, TrainableCheckpointHook
from ..exported import NOTE, read_exported
from ..files import check_folder, load_json
from ..files.packaged import locate
from ..models import KimiVL, QwenVL
from ..registry import FAMILIES
from .notes import check_note, check_stored, parse_config
from .taught import taught_by

#: a packaged model that writes outlines; docs/inference.md says how it is made
DEFAULT = 'simpleseg_mm://nano_sft'


def resolve(model: str | None, weights: str | None) -> tuple[Config, str | None]:
    """The config and the checkpoint that are meant.

    Args:
        model: a config file; a name of ``configs/simpleseg/metafile.yml``; a Hugging Face folder
            (``simpleseg_mm://NAME`` too) or hub id; None: the one in the checkpoint.
        weights: a .pth file, a run's folder (``work_dirs/NAME``, its best or last checkpoint), or
            a Hugging Face folder for the config's ``pretrained``; None: the weights that the
            config names.

    With neither: the packaged model, which knows expressions, points and boxes.

    Returns:
        The config, and the .pth file or None.

    Raises:
        FileNotFoundError, ValueError: nothing is there, or it is of a kind that is not loaded.
    """
    model, weights = _of_run(model), _of_run(weights)
    if weights is not None and not osp.exists(locate(weights)):
        raise FileNotFoundError(f'no weights {weights}: give a .pth file or a Hugging Face folder')
    if model is None and weights is not None and osp.isfile(weights):
        return _config_in(weights), weights
    if model is None and weights is None:
        return _config_of(DEFAULT), None
    if model is None:
        model, weights = weights, None
    if isinstance(model, str) and model.endswith(('.pth', '.pt')) and weights is None:
        return resolve(None, model)
    cfg = _config_of(model)
    if weights is not None and osp.isdir(locate(weights)):
        if not osp.isfile(osp.join(locate(weights), 'config.json')):
            raise ValueError(f'{weights} is no Hugging Face folder (it has no config.json); a '
                             'sharded checkpoint is first written as one file: test it once with '
                             'its own config, or resume and save on one process')
        cfg.model.mllm.pretrained, weights = weights, None
    return cfg, weights


def _of_run(name: str | None) -> str | None:
    """The checkpoint where a run's folder, or ``best`` or ``last`` in one, is named."""
    return find_checkpoint(name) if isinstance(name, str) and names_run(name) else name


def load_weights(model, cfg: Config, path: str, not_compared: Iterable[str] = ()) -> None:
    """Put a checkpoint into a model, with the checks that a run makes.

    Args:
        model: as built from ``cfg``.
        path: .pth file, or folder that several processes wrote.
        not_compared: frozen parameters whose values here are not those of the training.

    Raises:
        FileNotFoundError, ValueError: it is no checkpoint, or does not fit the model.
    """
    checkpoint = read_checkpoint(find_checkpoint(path))
    for name in not_compared:
        (_inner(checkpoint, 'meta', 'frozen_probes') or {}).pop(name, None)
    runner = SimpleNamespace(model=model, cfg=cfg)
    for hook in (TrainableCheckpointHook(), GrammarHook()):
        hook.after_load_checkpoint(runner, checkpoint)
    weights = checkpoint.get('state_dict', checkpoint)
    consume_prefix_in_state_dict_if_present(weights, 'module.')
    load_state_dict(model, weights)


def note_of(cfg: Config) -> dict | None:
    """What exported weights need to be used without their config, for ``simpleseg.json`` beside
    them: adapter, pixels, generation, prompt form, codec, what was taught. None where the config
    has no codec. transformers and inference engines pass the file over.

    Raises:
        ValueError: it holds what :func:`check_note` would refuse when the folder is read.
    """
    try:
        codec = query_of(cfg)['codec']
    except ValueError:
        return None
    mllm = {key: cfg.model.mllm[key] for key in (
        'type', 'dtype', 'min_pixels', 'max_pixels', 'system_prompt', 'chat_template_kwargs')
        if key in cfg.model.mllm}
    note = dict(mllm=mllm, generation=dict(cfg.model.get('generation') or {}),
                query=dict(type='FormatQuery', codec=dict(codec)),
                taught=taught_by(cfg).to_dict())
    return check_note(json.loads(json.dumps(note)), f"the config's {NOTE} for an export")


def query_of(cfg: Config) -> dict:
    """The ``query`` of the config's test set: prompt form and codec.

    Raises:
        ValueError: it has none.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    if not (dataset.get('query') or {}).get('codec'):
        raise ValueError('the config names no test_dataloader.dataset.query.codec: it says how '
                         'outlines are written')
    return dataset['query']


def _config_of(model) -> Config:
    if not isinstance(model, str):
        return Config(dict(model)) if not isinstance(model, Config) else Config(model.to_dict())
    if osp.isfile(model):
        if not model.endswith(('.py', '.json', '.yml', '.yaml')):
            raise ValueError(f'{model} is no config (.py, .json, .yml) and no checkpoint (.pth)')
        return read_config(model)
    folder = locate(model)
    if osp.isdir(folder):
        return _config_of_folder(folder)
    if (named := _config_named(model)) is not None:
        return named
    if model.count('/') == 1 and not model.startswith(('.', '/')):
        return _released('qwen25vl', model)
    near = nearest_configs(model)
    raise FileNotFoundError(f'no model {model}: ' + (
        f'did you mean {" or ".join(near)}?' if near else
        'give a config file, a checkpoint (.pth), a Hugging Face folder, a hub id (owner/name) or '
        'a name of configs/simpleseg/metafile.yml'))


def _config_of_folder(folder: str) -> Config:
    """A config for a Hugging Face folder: by its note, else as the released weights, or, where it
    is of another family than those, as one that was not taught outlines."""
    check_folder(folder)
    try:
        kind = load_json(Path(folder, 'config.json'))['model_type']
        if not isinstance(kind, str):
            raise KeyError
    except (OSError, KeyError):
        raise ValueError(f'{folder} is no Hugging Face folder: it needs a config.json with '
                         'model_type') from None
    said = read_exported(Path(folder), FAMILIES.module_dict)
    if said is not None:
        return Config(dict(
            default_scope='simpleseg_mm',
            model=dict(type='SimpleSeg', mllm=dict(said['mllm'], pretrained=folder),
                       generation=said['generation']),
            test_dataloader=dict(dataset=dict(query=said['query'])),
            visualizer=dict(type='SimpleSegVisualizer'),
            **({'taught': said['taught']} if 'taught' in said else {})))
    if kind in (*QwenVL.model_types, *KimiVL.model_types):
        return _released('kimivl' if kind in KimiVL.model_types else 'qwen25vl', folder)
    cfg = _released('qwen25vl', folder)  # in whose prompt form it is asked
    cfg.model.mllm = dict(type='AutoVLM', pretrained=folder, dtype=cfg.model.mllm.dtype)
    cfg.taught = dict(sets=[], prompts=[], outlines=False)
    return cfg


def _released(family: str, pretrained: str) -> Config:
    """The prompt form and grammar of the released SimpleSeg weights."""
    cfg = Config.fromfile(osp.join(config_root(), f'configs/simpleseg/released_{family}'
                                                  '_refcoco.py'))
    cfg.model.mllm.pretrained = pretrained
    return cfg


def _config_named(name: str) -> Config | None:
    root = config_root()
    for path in load(osp.join(root, 'model-index.yml'))['Import']:
        for entry in load(osp.join(root, path))['Models']:
            if entry['Name'].lower() == name.lower():
                return Config.fromfile(osp.join(root, entry['Config']))
    return None


def _config_in(weights: str) -> Config:
    """The config that MMEngine stores in a checkpoint, read and not run."""
    checkpoint = read_checkpoint(weights)
    text = (_inner(checkpoint, 'message_hub', 'runtime_info', 'cfg')
            or _inner(checkpoint, 'meta', 'cfg'))
    if not text:
        raise ValueError(f'{weights} does not hold its config; give the config file too')
    settings = parse_config(text, weights)
    check_stored(settings, f'the config in {weights}')
    return Config(settings)


def _inner(content, *keys: str):
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content
