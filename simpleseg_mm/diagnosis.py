"""What works on a machine and what to do first, from what was read of it; see :mod:`.machine`.

Pure: nothing is read or loaded here.
"""
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

#: Pythons that the package is for: from the first, below the second (setup.cfg)
PYTHONS = ((3, 10), (3, 13))
#: two families of packages that write the same folders
FLAVOURS = {'onedl': ('onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection'),
            'openmmlab': ('mmengine', 'mmcv', 'mmdet')}
#: what can be done -> memory of a GPU in GiB that it takes (0: none), and how it is called. From
#: docs/training.md and docs/inference.md
ABILITIES = (('nano on generated scenes: segment, train, serve', 0,
          'simpleseg segment simpleseg_mm://example.jpg "the orange ring"'),
         ('your own photos by a server', 0, 'simpleseg segment PHOTO TEXT --endpoint URL'),
         ('training of the 3B by LoRA on your own photos', 14,
          'simpleseg convert own-data ANNOTATIONS data/mine --base 3b-lora'),
         ('training of the 7B by QLoRA', 13, 'simpleseg train qwen25vl_qlora_sft_refcoco'),
         ('photos by the released 7B weights', 20,
          'simpleseg segment PHOTO TEXT --model sthui/SimpleSeg-Qwen2.5-VL'),
         ('training of the 7B by LoRA', 21.5, 'simpleseg train qwen25vl_lora_sft_refcoco'),
         ('training of the whole 7B, one GPU', 75.6, 'simpleseg train qwen25vl_sft_refcoco'))
_NO_DISK = 0.5  # GiB, with less nothing is trained. Our choice
_DISK = 20  # GiB: the released weights are 16.6 GB
_MEMORY = 4  # GiB that nano's training and the libraries take together. Our choice


@dataclass(frozen=True)
class Gpu:
    """One GPU as torch sees it; memory in GiB."""
    name: str
    total: float
    free: float


@dataclass(frozen=True)
class Machine:
    """What was read of a machine.

    Attributes:
        python: version, such as (3, 11, 7).
        version: of the package's code; ``installed``: of each installation of it that Python
            finds; ``home``: folder of the code; ``owner``: folder that the first of these
            installations says its code is in, None where that is not known.
        complete: whether configs, tools and the packaged weights are there.
        packages: name -> version, of all that is installed, names in small letters with hyphens.
        unmet: requirements of the package that are not met, such as ``torch>=2.9``, each with
            the version that is there or None.
        faults: library -> why it cannot be imported.
        torch_cuda: CUDA of torch's build; None of a build without.
        driver: whether the machine has an NVIDIA driver.
        gpus: of torch.
        cores: of the CPU; ``memory``: GiB that are free, None where that is not known;
            ``disk``: those of the working folder; ``writable``: whether that can be written to.
        hub: None where it answers, else why not; ``offline``: it was not asked, by
            HF_HUB_OFFLINE.
        weights: hub ids in the local cache; ``cache``: its folder, where that cannot be written
            to.
        data: folders of data sets below the working folder.
    """
    python: tuple[int, ...]
    version: str
    home: str
    installed: Sequence[str] = ()
    owner: str | None = None
    complete: bool = True
    packages: Mapping[str, str] = field(default_factory=dict)
    unmet: Mapping[str, str | None] = field(default_factory=dict)
    faults: Mapping[str, str] = field(default_factory=dict)
    torch_cuda: str | None = None
    driver: bool = False
    gpus: Sequence[Gpu] = ()
    cores: int = 1
    memory: float | None = None
    disk: float = 0.0
    writable: bool = True
    hub: str | None = None
    offline: bool = False
    weights: Sequence[str] = ()
    cache: str | None = None
    data: Sequence[str] = ()


@dataclass(frozen=True)
class Finding:
    """A line of the report.

    Attributes:
        name: what it is about.
        state: 'ok'; 'note', something is not there that not everybody needs; 'bad', nothing
            works before it is mended.
        said: what was found.
        do: what mends it; None where there is nothing to do.
    """
    name: str
    state: str
    said: str
    do: str | None = None


def diagnose(machine: Machine) -> list[Finding]:
    """A line each about Python, the package, its requirements, OpenMMLab, torch and GPU, memory,
    disk, hub, weights and data; in the order in which they are mended."""
    return [_python(machine), _package(machine), _requirements(machine), _openmmlab(machine),
            _torch(machine), _memory(machine), _disk(machine), _hub(machine), _weights(machine),
            _data(machine)]


def what_works(machine: Machine) -> tuple[list[str], list[str]]:
    """Of :data:`ABILITIES`, those that work here, and the others with what they lack."""
    if any(finding.state == 'bad' for finding in diagnose(machine)):
        return [], [name for name, _, _ in ABILITIES]
    most = max((gpu.total for gpu in machine.gpus), default=0)
    return ([name for name, needed, _ in ABILITIES if needed <= most],
            [f'{name} (a GPU of {needed:g} GiB)' for name, needed, _ in ABILITIES
             if needed > most])


def what_first(machine: Machine) -> str:
    """The one thing to do next."""
    findings = diagnose(machine)
    for state in ('bad', 'note'):
        for finding in findings:
            if finding.state == state and finding.do and (state == 'bad' or finding.name == 'GPU'):
                return finding.do
    return ABILITIES[0][2]


def _python(machine: Machine) -> Finding:
    said = '.'.join(map(str, machine.python))
    first, end = ('.'.join(map(str, version)) for version in PYTHONS)
    if not PYTHONS[0] <= machine.python[:2] < PYTHONS[1]:
        return Finding('Python', 'bad', f'{said}; the package is for {first} up to, not with, '
                       f'{end}', 'make an environment of Python 3.11, and install there')
    return Finding('Python', 'ok', said)


def _package(machine: Machine) -> Finding:
    said = f'{machine.version} in {machine.home}'
    again = 'pip uninstall simpleseg-mm (until there is none), then install it once'
    if not machine.complete:
        return Finding('simpleseg_mm', 'bad', f'{said}, without its configs, tools or packaged '
                       'weights', again)
    if len(machine.installed) > 1:
        return Finding('simpleseg_mm', 'bad', f'{said}; installed {len(machine.installed)} times: '
                       f'{", ".join(machine.installed)}', again)
    if machine.owner is not None and machine.owner != machine.home:
        return Finding('simpleseg_mm', 'note', f'{said}, which is not the installed one in '
                       f'{machine.owner}: this folder or PYTHONPATH comes before it', 'if that is '
                       'not meant: leave the folder, or unset PYTHONPATH')
    if machine.installed and machine.installed[0] != machine.version:
        return Finding('simpleseg_mm', 'note', f'{said}, installed as {machine.installed[0]}',
                       'install it again, so that its requirements are those of this version')
    return Finding('simpleseg_mm', 'ok', said)


def _requirements(machine: Machine) -> Finding:
    if 'torch' not in machine.packages and not any(
            name in machine.packages for name in sum(FLAVOURS.values(), ())):
        return Finding('requirements', 'bad', 'neither torch nor OpenMMLab is installed: nothing '
                       'that the package needs', "pip install 'simpleseg-mm[onedl]', or, in its "
                       "source, pip install -e '.[onedl]'")
    if machine.unmet:
        said = ', '.join(f'{asked} ({there or "not there"})'
                         for asked, there in machine.unmet.items())
        asked = ' '.join(f"'{name}'" for name in machine.unmet)
        return Finding('requirements', 'bad', f'not met: {said}', f'pip install {asked}')
    for name, fault in _own_faults(machine).items():
        if name == 'torch' or name in FLAVOURS['openmmlab']:
            continue  # said of themselves
        return Finding('requirements', 'bad', f'{name} cannot be imported: {fault}',
                       _REMEDIES.get(name, f'pip install --force-reinstall {name}'))
    return Finding('requirements', 'ok', 'all in range')


def _own_faults(machine: Machine) -> dict[str, str]:
    """The faults without those of libraries that import torch, where torch itself has one."""
    return {name: fault for name, fault in machine.faults.items() if 'torch' not in machine.faults
            or name not in (*FLAVOURS['openmmlab'], 'torchvision', 'transformers')}


_REMEDIES = {
    'cv2': 'pip uninstall opencv-python opencv-python-headless, then pip install '
           'opencv-python-headless (it needs no libGL)',
    'torchvision': 'pip uninstall torchvision (it is not needed), or install the build for this '
                   'torch'}


def _openmmlab(machine: Machine) -> Finding:
    there = {flavour: [f'{name} {machine.packages[name]}' for name in names
                       if name in machine.packages] for flavour, names in FLAVOURS.items()}
    if there['onedl'] and there['openmmlab']:
        return Finding('OpenMMLab', 'bad', 'two families write the same folders: '
                       + ', '.join(there['onedl'] + there['openmmlab']),
                       f"pip uninstall {' '.join(sum(FLAVOURS.values(), ()))}, then pip install "
                       "'simpleseg-mm[onedl]'")
    for flavour, found in there.items():
        if found and len(found) < 3:
            return Finding('OpenMMLab', 'bad', f'{", ".join(found)} alone; three are needed',
                           f"pip install 'simpleseg-mm[{flavour}]'")
        if found:
            faults = _own_faults(machine)
            fault = next((f'{name} cannot be imported: {faults[name]}'
                          for name in FLAVOURS['openmmlab'] if name in faults), None)
            if fault:
                return Finding('OpenMMLab', 'bad', fault,
                               f"pip install --force-reinstall 'simpleseg-mm[{flavour}]'")
            if flavour == 'openmmlab':
                return Finding('OpenMMLab', 'note', f'{", ".join(found)}: it cannot resume its '
                               'own checkpoints on torch 2.6 or newer', 'for that take '
                               "'simpleseg-mm[onedl]' in an environment of its own")
            return Finding('OpenMMLab', 'ok', ', '.join(found))
    return Finding('OpenMMLab', 'bad', 'none is installed', "pip install 'simpleseg-mm[onedl]'")


def _torch(machine: Machine) -> Finding:
    version = machine.packages.get('torch')
    if version is None or 'torch' in machine.faults:
        fault = machine.faults.get('torch', 'it is not installed')
        return Finding('GPU', 'bad', f'torch {version or ""}: {fault}'.replace(' :', ':'),
                       'pip install torch, the build for this machine (pytorch.org)')
    if machine.gpus:
        names = ', '.join(f'{gpu.name} ({gpu.free:.0f} of {gpu.total:.0f} GiB free)'
                          for gpu in machine.gpus)
        return Finding('GPU', 'ok', f'torch {version}, CUDA {machine.torch_cuda}: {names}')
    if machine.driver:
        why = ('is a build for CPUs' if machine.torch_cuda is None else
               f'with CUDA {machine.torch_cuda} does not see it')
        return Finding('GPU', 'note', f'there is a driver, but torch {version} {why}',
                       'install the build of torch for this driver (pytorch.org), or look at '
                       'CUDA_VISIBLE_DEVICES')
    return Finding('GPU', 'note', f'none; torch {version} on {machine.cores} cores')


def _memory(machine: Machine) -> Finding:
    if machine.memory is None:
        return Finding('memory', 'ok', f'not known, {machine.cores} cores')
    said = f'{machine.memory:.1f} GiB free, {machine.cores} cores'
    if machine.memory < _MEMORY:
        return Finding('memory', 'note', f'{said}; training of nano takes up to {_MEMORY}',
                       'end other programs, or take fewer samples (train_dataloader.batch_size)')
    return Finding('memory', 'ok', said)


def _disk(machine: Machine) -> Finding:
    said = f'{machine.disk:.{0 if machine.disk >= 10 else 1}f} GiB free in this folder'
    if not machine.writable:
        return Finding('disk', 'bad', 'this folder cannot be written to', 'cd to a folder of your '
                       'own: runs, pictures and data are written to where you are')
    if machine.disk < _NO_DISK:
        return Finding('disk', 'bad', said, 'free a few gigabytes, or cd to a folder of another '
                       'disk')
    if machine.disk < _DISK:
        return Finding('disk', 'note', f'{said}; released weights take 17 GB, and checkpoints as '
                       'much', 'for nano that is enough; for more give --work-dir on another disk')
    return Finding('disk', 'ok', said)


def _hub(machine: Machine) -> Finding:
    if machine.offline:
        return Finding('hub', 'note', 'not asked: HF_HUB_OFFLINE is set',
                       'unset HF_HUB_OFFLINE to fetch weights')
    if machine.hub is not None:
        return Finding('hub', 'note', f'{machine.hub}; what is packaged or cached works',
                       'set HF_HUB_OFFLINE=1, which spares the waiting; fetch weights elsewhere '
                       '(hf download ID --local-dir DIR)')
    return Finding('hub', 'ok', 'answers')


def _weights(machine: Machine) -> Finding:
    said = ', '.join(['nano (packaged)', *machine.weights])
    if machine.cache is not None:
        return Finding('weights', 'note', f'{said}; {machine.cache}, where fetched ones are kept, '
                       'cannot be written to', 'set HF_HOME to a folder of your own')
    return Finding('weights', 'ok', said)


def _data(machine: Machine) -> Finding:
    if machine.data:
        return Finding('data', 'ok', ', '.join(machine.data))
    return Finding('data', 'note', 'none in ./data',
                   'simpleseg convert refshapes data/refshapes, or docs/data.md for RefCOCO')
