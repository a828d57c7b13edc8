"""Reads what :mod:`.diagnosis` judges: this machine and its Python. Loads no library itself."""
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlparse

from . import __version__
from .diagnosis import Gpu, Machine

HUB = 'https://huggingface.co'
_PACKAGE = Path(__file__).resolve().parent
#: imports libraries one after the other and says what came of each: a crash of one ends this
#: process alone, and what it was about is its last line
_IMPORTS = '''
import importlib, json, sys, warnings
warnings.simplefilter("ignore")
for name in sys.argv[1:]:
    print(json.dumps(["begin", name]), flush=True)
    try:
        importlib.import_module(name)
    except BaseException as error:
        print(json.dumps(["fault", name, f"{type(error).__name__}: {error}"[:300]]), flush=True)
torch = sys.modules.get("torch")
print(json.dumps(["begin", ""]), flush=True)
if torch is not None and hasattr(torch, "cuda"):
    print(json.dumps(["begin", "torch"]), flush=True)
    try:
        print(json.dumps(["cuda", torch.version.cuda]), flush=True)
        for k in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(k)
            (torch.ones(1, device=f"cuda:{k}") + 1).item()  # that the build has kernels for it
            print(json.dumps(["gpu", torch.cuda.get_device_name(k), total / 2**30,
                              free / 2**30]), flush=True)
    except Exception as error:
        print(json.dumps(["fault", "torch", f"{type(error).__name__}: {error}"[:300]]),
              flush=True)
    print(json.dumps(["begin", ""]), flush=True)
'''


def look(folder: str = '.', hub_seconds: float = 3.0, import_seconds: float = 120.0) -> Machine:
    """What :func:`~.diagnosis.diagnose` needs.

    Args:
        folder: the working folder, whose disk and ``data/`` are looked at.
        hub_seconds: after which a hub that does not answer is not reachable.
        import_seconds: for all libraries together.
    """
    packages = _packages()
    homes = _installations()
    offline = os.environ.get('HF_HUB_OFFLINE', '').upper() in ('1', 'ON', 'YES', 'TRUE')
    names = [module for module, package in (
        ('torch', 'torch'), ('torchvision', 'torchvision'), ('cv2', None), ('numpy', 'numpy'),
        ('mmengine', None), ('mmcv', None), ('transformers', 'transformers'))
        if package is None or package in packages]
    faults, cuda, gpus = _imports(names, import_seconds)
    for name in ('mmengine', 'mmcv'):  # where none is installed that is said, not this
        if not {name, f'onedl-{name}'} & packages.keys():
            faults.pop(name, None)
    return Machine(
        python=sys.version_info[:3], version=__version__, home=str(_PACKAGE),
        installed=[version for version, _ in homes], owner=homes[0][1] if homes else None,
        complete=_is_complete(), packages=packages, unmet=_unmet(packages), faults=faults,
        torch_cuda=cuda, gpus=gpus, cores=len(os.sched_getaffinity(0))
        if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1,
        driver=shutil.which('nvidia-smi') is not None or Path('/proc/driver/nvidia').exists(),
        memory=_free_memory(), disk=shutil.disk_usage(folder).free / 2**30,
        writable=os.access(folder, os.W_OK | os.X_OK), offline=offline,
        hub=None if offline else _ask_hub(hub_seconds), weights=_cached(), cache=_locked(_cache()),
        data=_data(folder))


def _packages() -> dict[str, str]:
    found: dict[str, str] = {}
    for one in metadata.distributions():
        try:
            name, version = one.metadata['Name'], one.metadata['Version']
        except (KeyError, TypeError, OSError, ValueError):
            continue
        if name and version:  # a folder that an aborted installation left has none
            found.setdefault(_normal(name), version)
    return found


def _normal(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def _installations() -> list[tuple[str, str | None]]:
    """Version and folder of the code, of each installation of this package; the egg-info of a
    source tree that Python runs in is none."""
    found = []
    for one in metadata.distributions(name='simpleseg-mm'):
        if one.read_text('RECORD') is None:
            continue
        home = one.locate_file('simpleseg_mm')
        try:
            origin = json.loads(one.read_text('direct_url.json') or '{}')
        except ValueError:
            origin = {}
        if origin.get('dir_info', {}).get('editable'):
            home = Path(unquote(urlparse(origin.get('url', '')).path), 'simpleseg_mm')
        found.append((one.version, str(Path(str(home)).resolve())))
    return list(dict.fromkeys(found))


def _is_complete() -> bool:
    return (_PACKAGE / 'zoo/nano_sft/model.safetensors').is_file() and any(
        (root / 'configs/simpleseg').is_dir() and (root / 'tools/train.py').is_file()
        for root in (_PACKAGE.parent, _PACKAGE / '.mim'))


def _unmet(packages: dict[str, str]) -> dict[str, str | None]:
    """Requirements of the installed package, extras apart, that are not met."""
    try:
        from packaging.requirements import Requirement
        from packaging.version import InvalidVersion
    except ModuleNotFoundError:
        return {'packaging': None}
    try:
        lines = metadata.requires('simpleseg-mm') or []
    except ModuleNotFoundError:  # it is run from its source
        setup = configparser.ConfigParser()
        setup.read(_PACKAGE.parent / 'setup.cfg')
        lines = setup.get('options', 'install_requires', fallback='').split()
    found = {}
    for line in lines:
        need = Requirement(line)
        if need.marker is not None and not need.marker.evaluate({'extra': ''}):
            continue
        there = packages.get(_normal(need.name))
        try:
            fits = there is not None and need.specifier.contains(there, prereleases=True)
        except InvalidVersion:
            fits = False
        if not fits:
            found[f'{need.name}{need.specifier}'] = there
    return found


def _imports(names: list[str], seconds: float) -> tuple[dict, str | None, list[Gpu]]:
    """Faults, CUDA of torch's build, GPUs."""
    try:
        done = subprocess.run([sys.executable, '-c', _IMPORTS, *names], capture_output=True,
                              text=True, timeout=seconds)
        lines, end = done.stdout, done.returncode
    except subprocess.TimeoutExpired as error:
        lines, end = (error.stdout or b'').decode(errors='replace'), None
    faults: dict[str, str] = {}
    cuda, gpus, last = None, [], ''
    for line in lines.splitlines():
        try:
            kind, *values = json.loads(line)
        except ValueError:  # of a library
            continue
        if kind == 'begin':
            last = values[0]
        elif kind == 'fault':
            faults[values[0]] = ' '.join(values[1].split())
        elif kind == 'cuda':
            cuda = values[0]
        else:
            gpus.append(Gpu(*values))
    if end != 0 and last:
        faults[last] = f'not done after {seconds:g} s' if end is None else (
            f'it ended Python with status {end}')
    return faults, cuda, gpus


def _free_memory() -> float | None:
    """GiB that programs can have, within the limit of a container; None where it is not known."""
    try:
        text = Path('/proc/meminfo').read_text()
        free = int(re.search(r'MemAvailable:\s*(\d+)', text)[1]) / 2**20
    except (OSError, TypeError):
        return None
    try:
        limit, used = (int(Path('/sys/fs/cgroup', name).read_text())
                       for name in ('memory.max', 'memory.current'))
        return min(free, (limit - used) / 2**30)
    except (OSError, ValueError):  # none, or 'max'
        return free


def _ask_hub(seconds: float) -> str | None:
    """None where the hub answers, whatever; else why not. The look-up of a name has no time-out
    of its own, so it is waited for from outside."""
    address = os.environ.get('HF_ENDPOINT', HUB)
    said = [f'{address} does not answer within {seconds:g} s']

    def ask() -> None:
        try:
            request = urllib.request.Request(address, method='HEAD')
            urllib.request.urlopen(request, timeout=seconds).close()
            said[0] = None
        except urllib.error.HTTPError:
            said[0] = None
        except (OSError, ValueError) as error:
            said[0] = f'{address}: {" ".join(str(getattr(error, "reason", error)).split())[:80]}'

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds + 1)
    return said[0]


def _cache() -> Path:
    """Where the Hub's client keeps what it fetches."""
    home = os.environ.get('HF_HOME') or os.path.join(
        os.environ.get('XDG_CACHE_HOME') or '~/.cache', 'huggingface')
    return Path(os.path.expanduser(os.environ.get('HF_HUB_CACHE') or os.path.join(home, 'hub')))


def _locked(folder: Path) -> str | None:
    """The folder, where it cannot be written to, or not be made."""
    place = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists())
    return None if place.is_dir() and os.access(place, os.W_OK | os.X_OK) else str(folder)


def _cached() -> list[str]:
    """Hub ids of models of this project's kinds whose weights are in the cache."""
    cache = _cache()
    return sorted(path.parents[2].name.removeprefix('models--').replace('--', '/') for path in {
        found.parent.parent / found.parent.name / found.name
        for found in cache.glob('models--*/snapshots/*/config.json')}
        if any(path.parent.glob('*.safetensors')))


def _data(folder: str) -> list[str]:
    return sorted(f'data/{path.name}' for path in Path(folder, 'data').glob('*')
                  if path.is_dir() and any(path.iterdir()))
