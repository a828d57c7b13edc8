"""Folders of weights in Hugging Face's form: looked at before transformers reads them.

Code of a folder is never run, whatever is typed at the terminal.
"""
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from .texts import load_json

#: files that may name code of the folder (``auto_map``), or another's
_CONFIGS = ('config.json', 'tokenizer_config.json', 'processor_config.json',
            'preprocessor_config.json', 'video_preprocessor_config.json', 'generation_config.json')
_INDEXES = ('model.safetensors.index.json', 'pytorch_model.bin.index.json')
#: files that transformers and the converters read
_KINDS = ('.json', '.jinja', '.model', '.txt', '.safetensors', '.bin')
_POINTER = b'version https://git-lfs.github.com'
_CONVERT = ('{0} is a Kimi-VL folder as released: it holds remote code, which is never run here. '
            'Convert it once, simpleseg convert kimi-vl {0} OUT, and give OUT')


def from_folder(loader: Callable, folder: str | os.PathLike, **options):
    """``loader(folder, **options)``, the only way in which a ``from_pretrained`` is called here.

    Args:
        loader: ``from_pretrained`` of a class of transformers.
        folder: local folder or hub id.
        options: of the loader.

    Raises:
        ValueError: the folder asks for code of its own, or cannot be loaded; one line.
        FileNotFoundError: there is no such folder, and the hub did not give it.
    """
    folder = str(folder)
    if Path(folder).is_dir():
        check_folder(folder)
    if loader.__self__.__name__.startswith('Auto'):  # other classes know no code but their own
        options['trust_remote_code'] = False
    try:
        return loader(folder, **options)
    except ImportError:
        raise
    except Exception as error:  # tokenizers and safetensors raise what their bytes lead to
        said = ' '.join(str(error).split())
        if 'trust_remote_code' in said:
            raise ValueError(f'{folder} holds remote code, which is never run here: take weights '
                             'that transformers has a class for (Kimi-VL is converted: '
                             'tools/model_converters/kimi_vl.py)') from error
        if Path(folder).is_dir():
            raise ValueError(f'{folder} is a folder, but cannot be loaded: {said[:600]}. Fetch '
                             'what is broken or missing again') from error
        raise FileNotFoundError(
            f'weights {folder!r}: no such local folder, and the Hugging Face Hub did not give '
            f'them. Fetch them with `hf download {folder} --local-dir DIR` and name DIR: --model '
            'DIR for the command simpleseg, --cfg-options model.mllm.pretrained=DIR for the tools'
        ) from error


def check_folder(folder: str | os.PathLike) -> None:
    """Refuse a folder that asks for code of its own, or whose files are not all there.

    Raises:
        ValueError, FileNotFoundError: one line: which file, and what to do.
    """
    check_whole(folder)
    folder = Path(folder)
    contents = {name: load_json(folder / name) for name in _CONFIGS if (folder / name).is_file()}
    for name, content in contents.items():
        if not isinstance(content, dict):
            raise ValueError(f'{folder / name} holds no settings by name: fetch it again')
    if contents.get('config.json', {}).get('model_type') == 'kimi_vl':
        raise ValueError(_CONVERT.format(folder))
    for name, content in contents.items():
        for key in _code_in(content):
            raise ValueError(
                f'{folder} holds remote code ({key} in {name}), which is never run here: take '
                f'weights that transformers has a class for, or delete {key} from {name} to read '
                'the folder by the class of transformers that its model_type names')
    if (folder / 'config.json').is_file() and (folder / 'adapter_config.json').is_file():
        raise ValueError(f'{folder} holds a LoRA adapter (adapter_config.json) beside a config: '
                         'merge it into its base first, or delete that file to read the base')


def check_whole(folder: str | os.PathLike) -> None:
    """Refuse a folder whose files are not all there: a pointer that Git leaves where LFS did not
    fetch, an empty file, a file of weights that the index names and the folder does not hold.

    Raises:
        ValueError, FileNotFoundError: one line: which file, and what to do.
    """
    folder = Path(folder)
    for file in sorted(folder.iterdir()):
        if not (file.is_file() and file.suffix in _KINDS):
            continue
        with open(file, 'rb') as opened:
            start = opened.read(len(_POINTER))
        if start == _POINTER:
            raise ValueError(f'{file} is a pointer of Git LFS, not the file itself: run `git lfs '
                             'pull` there, or fetch the folder by `hf download`')
        if not start and file.suffix in ('.json', '.safetensors', '.bin'):
            raise ValueError(f'{file} is empty: fetch it again')
    for name in _INDEXES:
        if (folder / name).is_file():
            _check_index(folder, name)


def chat_template_of(folder: str | os.PathLike) -> str | None:
    """The template in ``chat_template.json``, which transformers reads for a processor but not for
    a tokenizer; None where there is none."""
    file = Path(folder, 'chat_template.json')
    content = load_json(file) if file.is_file() else {}
    template = content.get('chat_template') if isinstance(content, dict) else None
    return template if isinstance(template, str) else None


def _code_in(content: object) -> Iterator[str]:
    """Keys, at any depth, by which a file of settings names code that is not transformers'."""
    if isinstance(content, dict):
        for key, value in content.items():
            if key == 'auto_map' and value:
                yield key
            elif key.endswith('attn_implementation') and '/' in str(value):
                yield key
            yield from _code_in(value)
    elif isinstance(content, list):
        for value in content:
            yield from _code_in(value)


def _check_index(folder: Path, name: str) -> None:
    content = load_json(folder / name)
    where = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(where, dict) or not all(isinstance(v, str) for v in where.values()):
        raise ValueError(f'{folder / name} has no weight_map of tensors and files: fetch it again')
    shards = sorted(set(where.values()))
    if outside := [shard for shard in shards if Path(shard).name != shard]:
        raise ValueError(f'{folder / name} names files outside of its folder, '
                         f'{json.dumps(outside[:3])}: fetch it again')
    if missing := [shard for shard in shards if not (folder / shard).is_file()]:
        more = f' and {len(missing) - 3} more' if len(missing) > 3 else ''
        raise FileNotFoundError(
            f'{folder / name} names {", ".join(missing[:3])}{more}, which the folder does not '
            f'hold: fetch {"it" if len(missing) == 1 else "them"} again')
