"""Checkpoints as they are read: every kind of damage, and code that must not run."""
import os
import pickle
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from mmengine.logging import MessageHub
from mmengine.runner.checkpoint import CheckpointLoader

from simpleseg_mm.engine import launch
from simpleseg_mm.engine.checkpoint_file import (CheckpointError, fault_of, load_from_local,
                                                 read_checkpoint)
from simpleseg_mm.engine.sharded_checkpoint import save_sharded


def checkpoint():
    hub = MessageHub('checkpoint_file')
    for value in (1.0, 2.5):
        hub.update_scalar('train/loss', value)
    hub.update_info('best_score', np.float64(3.5))
    hub.update_info('array', np.array(['0', '1', '2']))
    return dict(meta=dict(iter=4, cfg='x = 1', dataset_meta=dict(classes=('object', ))),
                state_dict=dict(weight=torch.arange(4000.).view(40, 100)),
                optimizer=dict(state={0: dict(step=torch.tensor(3.))}),
                message_hub=hub.state_dict())


def part(path, inside):
    """Where a part's bytes lie in an archive: begin, size."""
    with zipfile.ZipFile(path) as archive:
        info, = (i for i in archive.infolist() if i.filename.endswith(inside))
    data = path.read_bytes()
    start = info.header_offset + 30 + sum(
        int.from_bytes(data[info.header_offset + at:info.header_offset + at + 2], 'little')
        for at in (26, 28))
    return start, info.file_size


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 16
    path.write_bytes(data)


def holes(path, inside):
    start, size = part(path, inside)
    data = path.read_bytes()
    path.write_bytes(data[:start] + bytes(size) + data[start + size:])


def cut(path, keep):
    path.write_bytes(path.read_bytes()[:keep])


class Gadget:
    def __reduce__(self):
        return os.system, ('touch canary', )


DAMAGES = {
    'empty': (lambda p: p.write_bytes(b''), 'is empty'),
    'one byte less': (lambda p: cut(p, -1), 'not written to its end'),
    'half of it': (lambda p: cut(p, p.stat().st_size // 2), 'not written to its end'),
    'ten bytes': (lambda p: cut(p, 10), 'not written to its end'),
    'all zeros': (lambda p: p.write_bytes(bytes(5000)), 'zeros'),
    'zeros in the tensors': (lambda p: holes(p, 'data/0'), 'checksum of .*data/0'),
    'zeros in the pickle': (lambda p: holes(p, 'data.pkl'), 'checksum of .*data.pkl'),
    'a bit of a tensor': (lambda p: flip(p, part(p, 'data/0')[0] + 777), 'checksum of .*data/0'),
    'a bit of the pickle': (lambda p: flip(p, part(p, 'data.pkl')[0] + 99), 'checksum'),
    'a bit of the contents': (lambda p: flip(p, p.stat().st_size - 30), 'damaged'),
    'zeros at the end': (lambda p: (cut(p, -300), p.write_bytes(p.read_bytes() + bytes(300))),
                         'damaged'),
    'pointer of git LFS': (lambda p: p.write_text(
        'version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 123\n'), 'git lfs pull'),
    'a page of HTML': (lambda p: p.write_text('<html>404</html>'), 'no checkpoint of PyTorch'),
    'a list': (lambda p: torch.save([1, 2], p), 'holds a list'),
    'an empty folder': (lambda p: (p.unlink(), p.mkdir()), 'not a whole checkpoint'),
    'a folder of Hugging Face': (lambda p: (p.unlink(), p.mkdir(), (p / 'config.json').touch()),
                                 'model.mllm.pretrained'),
    'a link to nothing': (lambda p: (p.unlink(), p.symlink_to('nowhere')), 'no checkpoint'),
    'code': (lambda p: torch.save(dict(state_dict=Gadget()), p), r'\.system, which could run'),
    'code in the old format': (lambda p: torch.save(
        dict(state_dict=Gadget()), p, _use_new_zipfile_serialization=False), 'could run code'),
    'a bare pickle of code': (lambda p: p.write_bytes(pickle.dumps(Gadget(), 2)), 'could run|no'),
}


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_damaged_checkpoint_is_one_line(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / 'iter_4.pth'
    torch.save(checkpoint(), path)
    spoil, match = DAMAGES[damage]
    spoil(path)
    for read in (read_checkpoint, CheckpointLoader.load_checkpoint):
        with pytest.raises((CheckpointError, FileNotFoundError), match=match) as error:
            read(str(path), 'cpu')
        assert '\n' not in str(error.value) and 'iter_4.pth' in str(error.value)
    assert not os.path.exists('canary')


@pytest.mark.parametrize('address', [
    'http://127.0.0.1:9/a.pth', 'https://127.0.0.1:9/a.pth', 'file:///a.pth', 's3://a/b.pth',
    'cluster:s3://a/b.pth', 'petrel://a/b.pth', 'pavi://a/1', 'openmmlab://resnet50',
    'open-mmlab://resnet50', 'modelzoo://resnet50', 'torchvision://resnet50',
    'mmcls://mobilenet_v2', 'simpleseg_mm://nano'])
def test_an_address_is_no_checkpoint(address):
    """MMEngine fetches these, and runs what they hold."""
    for read in (read_checkpoint, CheckpointLoader.load_checkpoint, launch.find_checkpoint,
                 launch.existing_checkpoint):
        with pytest.raises(CheckpointError, match='address.*Download it') as error:
            read(address)
        assert '\n' not in str(error.value) and address in str(error.value)
    assert set(CheckpointLoader._schemes.values()) == {load_from_local}  # no reader beside ours


def test_every_bit_of_tensors_and_pickle_counts(tmp_path):
    """Wherever a bit flips, the checkpoint is refused, or what is read is what was written."""
    path = tmp_path / 'a.pth'
    torch.save(checkpoint(), path)
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for at in rng.integers(0, len(data), 60):
        flip(path, at)
        try:
            assert torch.equal(read_checkpoint(str(path))['state_dict']['weight'],
                               checkpoint()['state_dict']['weight']), at
        except CheckpointError:
            pass
        path.write_bytes(data)


@pytest.mark.parametrize('old', [False, True])
def test_what_our_checkpoints_hold_is_read(tmp_path, old):
    path = tmp_path / 'a.pth'
    torch.save(checkpoint(), path, _use_new_zipfile_serialization=not old)
    read = read_checkpoint(str(path))
    assert torch.equal(read['state_dict']['weight'], checkpoint()['state_dict']['weight'])
    hub = read['message_hub']
    assert hub['log_scalars']['train/loss'].data[0].tolist() == [1.0, 2.5]
    assert hub['runtime_info']['best_score'] == 3.5
    assert hub['runtime_info']['array'].tolist() == ['0', '1', '2']
    assert read['meta']['dataset_meta'] == dict(classes=('object', ))


def test_getattr_gives_log_histories_alone(tmp_path):
    class Reach:
        def __reduce__(self):
            return getattr, (torch.nn.Module, '__init__')
    torch.save(dict(a=Reach()), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError):
        read_checkpoint(str(tmp_path / 'a.pth'))


def test_a_missing_one_names_what_is_there(tmp_path):
    for name in ('iter_9.pth', 'iter_10.pth', 'best_res_cIoU_iter_9.pth'):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match='best_res_cIoU_iter_9.pth, iter_9.pth, iter_10'):
        read_checkpoint(str(tmp_path / 'iter_11.pth'))
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        read_checkpoint(str(tmp_path / 'run/iter_11.pth'))


@pytest.mark.skipif(os.geteuid() == 0, reason='root may read everything')
def test_without_permission(tmp_path):
    torch.save(checkpoint(), tmp_path / 'a.pth')
    (tmp_path / 'a.pth').chmod(0)
    with pytest.raises(CheckpointError, match='Permission denied'):
        read_checkpoint(str(tmp_path / 'a.pth'))


# --- folders --------------------------------------------------------------------------------
class MetadataGadget:
    def __reduce__(self):
        return subprocess.call, (['touch', 'canary'], )


FOLDER_DAMAGES = {
    'no rest': (lambda f: (f / 'checkpoint.pth').unlink(), 'it has no checkpoint.pth'),
    'no contents': (lambda f: (f / '.metadata').unlink(), r'it has no \.metadata'),
    'no part': (lambda f: next(f.glob('*.distcp')).unlink(), 'distcp'),
    'half a part': (lambda f: cut(next(f.glob('*.distcp')), 900), 'distcp'),
    'zeros in a part': (lambda f: next(f.glob('*.distcp')).write_bytes(bytes(20000)), 'distcp'),
    'half the contents': (lambda f: cut(f / '.metadata', 100), r'\.metadata is damaged'),
    'a bit of the rest': (lambda f: flip(f / 'checkpoint.pth', 200), 'checkpoint.pth'),
    'code': (lambda f: (f / '.metadata').write_bytes(pickle.dumps(MetadataGadget())),
             'subprocess.call, which could run code'),
}


@pytest.mark.parametrize('damage', FOLDER_DAMAGES)
def test_a_damaged_folder_is_one_line(tmp_path, monkeypatch, damage):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / 'iter_4.pth'
    save_sharded(checkpoint(), str(folder))
    assert fault_of(str(folder)) is None
    spoil, match = FOLDER_DAMAGES[damage]
    spoil(folder)
    with pytest.raises(CheckpointError, match=match) as error:
        read_checkpoint(str(folder))
    assert '\n' not in str(error.value) and not os.path.exists('canary')


# --- --resume ------------------------------------------------------------------------------
@pytest.mark.parametrize('damage', [name for name in DAMAGES if 'bit' in name or 'zero' in name
                                    or 'folder' in name or name in ('empty', 'half of it')])
def test_resume_takes_the_one_before(tmp_path, monkeypatch, damage):
    for step in (8, 12, 100):
        torch.save(checkpoint(), tmp_path / f'iter_{step}.pth')
    DAMAGES[damage][0](tmp_path / 'iter_100.pth')
    said = []
    monkeypatch.setattr(launch, 'print_log', lambda text, **kwargs: said.append(text))
    assert launch.find_resumable(str(tmp_path)).endswith('iter_12.pth')
    assert len(said) == 1 and 'iter_100.pth' in said[0]
