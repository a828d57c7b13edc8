"""Fixtures shared by the tests."""
import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(scope='session')
def real_data() -> Path:
    """Folder with ``coco_photos``, ``refcoco_mini`` and ``refexp``, named by SIMPLESEG_DATA."""
    root = os.environ.get('SIMPLESEG_DATA')
    if not root:
        pytest.skip('set SIMPLESEG_DATA to the folder with coco_photos, refcoco_mini and refexp')
    path = Path(root)
    if not path.is_dir():
        raise FileNotFoundError(f'SIMPLESEG_DATA={root} is not a folder')
    return path


@pytest.fixture(scope='module')
def one_thread():
    """For tests that compare bit for bit: the order of a sum may depend on the threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
