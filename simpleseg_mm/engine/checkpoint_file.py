"""Checkpoints as they are read: checked to the last byte, and without running what they hold.

Importing this module makes MMEngine read checkpoints (``load_from``, ``--resume``,
``tools/test.py``, ``mmengine.runner.load_checkpoint``) by :func:`read_checkpoint`, and refuse
addresses.
"""
import io
import os
import re
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmengine.runner.checkpoint import CheckpointLoader

from .checkpoint_content import NEXT, REST, CheckpointError, FolderReader, load_torch_file
from .sharded_checkpoint import load_sharded


def read_checkpoint(path: str, map_location='cpu') -> dict[str, Any]:
    """Read a checkpoint, whole, or say in one line why not.

    Args:
        path: a ``.pth`` file, or a folder that :func:`~.sharded_checkpoint.save_sharded` wrote.
        map_location: as for ``torch.load``; of files alone.

    Returns:
        What was saved: of MMEngine's checkpoints ``state_dict``, ``meta``, ``message_hub`` and,
        where training can go on from them, ``optimizer`` and ``param_schedulers``.

    Raises:
        FileNotFoundError: nothing is there.
        CheckpointError: it is an address, damaged, no checkpoint, or holds objects that could run
            code. None is ever run: tensors, numbers, texts, containers and MMEngine's log
            histories are read.
    """
    refuse_address(path)
    path = os.path.expanduser(path)
    if fault := fault_of(path):
        if not os.path.exists(path):
            raise FileNotFoundError(fault)
        raise CheckpointError(fault)
    if os.path.isdir(path):
        if not os.path.isfile(os.path.join(path, REST)):
            raise CheckpointError(f'{path} was written by DeepSpeed: only its own config, and as '
                                  'many processes as wrote it, can read it')
        return load_sharded(path)
    checkpoint = load_torch_file(path, map_location)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(f'{path} holds a {type(checkpoint).__name__}, not a checkpoint: '
                              'give a .pth file that training wrote')
    return checkpoint


def refuse_address(name: str) -> None:
    """Checkpoints are files: what MMEngine would fetch from elsewhere could run code.

    Raises:
        CheckpointError: ``name`` is an address (``https://``, ``s3://``, ``openmmlab://``, ...).
    """
    if '://' in str(name):
        raise CheckpointError(f'{name} is an address: a checkpoint is read from a file or folder '
                              'of this machine. Download it, and give the file')


# Also of addresses, for which MMEngine has readers that run what a file holds.
@CheckpointLoader.register_scheme(force=True, prefixes=[
    '', 'http://', 'https://', 'torchvision://', 'open-mmlab://', 'openmmlab://', 'mmcls://',
    'modelzoo://', 'pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://'])
def load_from_local(filename: str, map_location=None) -> dict[str, Any]:
    """MMEngine's one reader of checkpoints, see :func:`read_checkpoint`."""
    return read_checkpoint(filename, map_location)


def fault_of(path: str) -> str | None:
    """What is wrong with a checkpoint's bytes, in one line; None where it is whole.

    All of it is read: archives carry a checksum of every part.
    """
    path = Path(path)
    if not path.exists():
        return f'no checkpoint {path}{what_is_there(path.parent)}'
    if path.is_dir():
        return _fault_of_folder(path)
    try:
        state = path.stat()
        return _fault_of_file(str(path), state.st_size, state.st_mtime_ns)
    except OSError as error:
        return f'{path} cannot be read: {error.strerror}'


def what_is_there(folder: Path) -> str:
    """The checkpoints of a folder, as the end of a message; what is missing, where there are
    none."""
    if not folder.is_dir():
        return f': there is no folder {folder}'
    names = sorted((p.name for p in folder.glob('*.pth')), key=_by_number)
    if not names:
        return f': {folder} holds no checkpoint (*.pth)'
    more = f' and {len(names) - 8} more' if len(names) > 8 else ''
    return f"; {folder} holds {', '.join(names[-8:])}{more}"


def _by_number(name: str) -> tuple:
    """Orders names by the numbers in them."""
    return tuple((int(part), '') if part.isdigit() else (-1, part)
                 for part in re.split(r'(\d+)', name))


@lru_cache(maxsize=64)
def _fault_of_file(path: str, size: int, changed: int) -> str | None:
    """``size`` and ``changed`` make the answer that of these bytes."""
    if not size:
        return f'{path} is empty. {NEXT}'
    with open(path, 'rb') as file:
        start = file.read(256)
        if start.startswith(b'version https://git-lfs'):
            return (f'{path} is a pointer of git LFS, not the checkpoint itself: fetch it with '
                    '`git lfs pull`')
        if not start.strip(b'\0'):
            return f'{path} begins with zeros: it was not written to its end. {NEXT}'
        file.seek(0)
        if start.startswith(b'PK') and (fault := _fault_of_archive(file, path)):
            return fault  # the old format of torch.save has no checksums
    try:
        load_torch_file(path, 'meta')  # what torch.load looks at beside the tensors
    except CheckpointError as error:
        return str(error)
    return None


def _fault_of_archive(file, name) -> str | None:
    """Of a zip archive, which is what ``torch.save`` writes."""
    try:
        with zipfile.ZipFile(file) as archive:
            part = archive.testzip()
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError,
            OverflowError, OSError) as error:
        if isinstance(error, OSError):
            return f'{name} cannot be read: {error}. {NEXT}'
        return f'{name} is damaged or was not written to its end. {NEXT}'
    return part and f'{name} is damaged: the checksum of {part} is wrong. {NEXT}'


def _fault_of_folder(folder: Path) -> str | None:
    deepspeed = sorted(folder.glob('*.pt'))
    if (folder / REST).is_file():
        files = [folder / REST]
        try:
            stored = FolderReader(folder).read_metadata()
            for place in stored.storage_data.values():
                with open(folder / place.relative_path, 'rb') as file:
                    file.seek(place.offset)
                    part = io.BytesIO(file.read(place.length))
                if fault := _fault_of_archive(part, folder / place.relative_path):
                    return fault
        except (OSError, CheckpointError) as error:
            return f'{folder} is not a whole checkpoint: {error}'
    elif any(path.name.endswith('_model_states.pt') for path in deepspeed):
        files = deepspeed
    elif (folder / 'config.json').is_file():
        return (f'{folder} is a Hugging Face folder, not a checkpoint: set it as '
                'model.mllm.pretrained')
    else:
        return f'{folder} is not a whole checkpoint: it has no {REST}{what_is_there(folder)}'
    return next(filter(None, (fault_of(path) for path in files)), None)
