"""What checkpoints hold, read without running it: torch's files, folders' tables of contents."""
import os
import pickle
import re
import struct
from dataclasses import is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed.checkpoint as dcp
from mmengine.logging import HistoryBuffer
from torch.distributed.checkpoint import filesystem, metadata

#: of a folder that several processes wrote: everything but the tensors
REST = 'checkpoint.pth'
#: ends messages about what is damaged
NEXT = 'Take an earlier one, or copy or download it again.'


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the text is one line that says why and what to do."""


def load_torch_file(path: os.PathLike, map_location='cpu') -> Any:
    """``torch.load`` of what our checkpoints hold, and of nothing that could run code.

    Raises:
        CheckpointError: the file holds something else.
    """
    try:
        with torch.serialization.safe_globals(_SAFE):
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r'GLOBAL ([\w.]+)', str(error))
        if named:
            raise CheckpointError(
                f'{path} holds {named[1]}, which could run code: it is not loaded. If you trust '
                'where it comes from, save its state_dict alone: '
                "torch.save(dict(state_dict=torch.load(FILE, weights_only=False)['state_dict']), "
                'NEW)') from None
        raise CheckpointError(f'{path} is no checkpoint of PyTorch. {NEXT}') from None
    except (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError,
            OverflowError, struct.error) as error:
        if isinstance(error, RuntimeError) and 'CUDA' in str(error):
            raise  # the machine's fault, not the file's
        first = str(error).strip().partition('\n')[0]
        raise CheckpointError(f'{path} cannot be read ({type(error).__name__}: {first[:120]}). '
                              f'{NEXT}') from None


class _OnlyMetadata(pickle.Unpickler):
    """Reads the table of contents of a folder, and nothing that could run code."""

    _ALLOWED = {'builtins': {'set', 'frozenset', 'slice', 'list', 'dict', 'tuple', 'int', 'bool'},
                'collections': {'OrderedDict'},
                'pathlib': {'Path', 'PosixPath', 'PurePosixPath', 'WindowsPath'},
                'torch': {'Size', 'device'},
                'torch.serialization': {'_get_layout'}}

    def find_class(self, module: str, name: str) -> Any:
        for known in (metadata, filesystem):
            found = vars(known).get(name) if module == known.__name__ else None
            if isinstance(found, type) and (is_dataclass(found) or issubclass(found, Enum)):
                return found
        if name in self._ALLOWED.get(module, ()) or (
                module == 'torch' and isinstance(getattr(torch, name, None),
                                                 (torch.dtype, torch.memory_format))):
            return super().find_class(module, name)
        raise CheckpointError(f'its .metadata holds {module}.{name}, which could run code')


class FolderReader(dcp.FileSystemReader):
    """``FileSystemReader`` whose table of contents cannot run code."""

    def read_metadata(self, *args, **kwargs):
        """As the parent's.

        Raises:
            CheckpointError: it is damaged, or holds something else.
        """
        path = Path(self.path, '.metadata')
        try:
            with open(path, 'rb') as file:
                stored = _OnlyMetadata(file).load()
        except FileNotFoundError:
            raise CheckpointError(f'it has no {path.name}') from None
        except (CheckpointError, OSError):
            raise
        except Exception as error:  # a pickle of damaged bytes raises what it likes
            raise CheckpointError(f'its {path.name} is damaged ({type(error).__name__})') from None
        if getattr(stored, 'storage_meta', None) is None:
            stored.storage_meta = metadata.StorageMeta()
        stored.storage_meta.load_id = self.load_id
        return stored


def _history_method(owner: type, name: str):
    """``getattr`` as the log histories of MMEngine's message hub need it."""
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'getattr({owner!r}, {name!r}) is not allowed')
    return getattr(owner, name)


def _safe() -> list[Any]:
    array, scalar = (value.__reduce__()[0] for value in (np.zeros(1), np.float64(0)))
    return [HistoryBuffer, (_history_method, 'builtins.getattr'), slice, np.ndarray, np.dtype,
            array, scalar,
            (array, 'numpy.core.multiarray._reconstruct'),  # NumPy 1
            (scalar, 'numpy.core.multiarray.scalar'),
            *(getattr(np.dtypes, name) for name in np.dtypes.__all__)]


_SAFE = _safe()
