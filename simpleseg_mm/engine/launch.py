"""What ``tools/train.py`` and ``tools/test.py`` do to a config before they start a runner."""
import errno
import logging
import os.path as osp
import re
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import LinearParamScheduler
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..config import accumulated_batches
from ..registry import LOOPS, OPTIMIZERS, PARAM_SCHEDULERS, STRATEGIES, builds
from .checkpoint_content import REST, CheckpointError
from .checkpoint_file import fault_of, refuse_address, what_is_there
from .optimizers import MuonAdamW
from .rl_loop import RLTrainLoop
from .sharding import DeepSpeedStrategy

_PACKAGE = Path(__file__).resolve().parent.parent
#: errors of files that are no fault of the program's
_FILES = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT, errno.EROFS,
          errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP)


def fit_global_batch(cfg: Config, processes: int) -> int:
    """Reach ``cfg.global_batch_size`` by accumulating gradients.

    The iterations of a config count updates of ``global_batch_size`` samples; MMEngine's count
    batches of one process. With k = global_batch_size / (processes x batch_size) batches an
    update, the loop, the learning rate schedule and the intervals of checkpoints and samples are
    stretched by k here, once. In reinforcement learning ``global_batch_size`` is the prompts of
    a rollout, and ``batch_size`` becomes each process's share of them.

    Returns:
        k; 1 where the config has no ``global_batch_size``.

    Raises:
        ValueError: k is not a whole number, the config accumulates by itself as well, or its
            strategy cannot split its quantized weights.
    """
    if cfg.get('model', {}).get('mllm', {}).get('quantization') and cfg.get('strategy'):
        raise ValueError(f"model.mllm.quantization under {cfg.strategy.get('type')}: weights of "
                         'few bits are not split; leave `strategy` out (several processes then '
                         'hold the weights once each), or train without quantization')
    deepspeed = _prepare_deepspeed(cfg)
    shorten_warm_up(cfg)
    total = cfg.get('global_batch_size')
    if not total:
        return 1
    if is_rl(cfg):
        return _fit_prompts(cfg, total, processes)
    batch_size = cfg.train_dataloader.batch_size
    count, rest = divmod(total, processes * batch_size)
    if rest or not count:
        raise ValueError(
            f'global_batch_size={total} is not a multiple of {processes} process(es) x batch_size '
            f'{batch_size}: {_divisors(total, processes, "train_dataloader.batch_size")}, or '
            'change global_batch_size itself (0 leaves the batch as it is).')
    if accumulated_batches(cfg) != 1:
        raise ValueError('Give global_batch_size or optim_wrapper.accumulative_counts, not both.')
    if deepspeed:
        if count > 1:
            _check_accumulation(cfg, f'{count} accumulated batches')
        cfg.strategy.gradient_accumulation_steps = count
    else:
        cfg.optim_wrapper.accumulative_counts = count
    _stretch(cfg.train_cfg, ('max_iters', 'val_interval', 'val_begin'), count)
    for scheduler in cfg.get('param_scheduler') or []:
        if not scheduler.get('by_epoch', True):
            _stretch(scheduler, ('begin', 'end', 'T_max'), count)
    for name in ('checkpoint', 'samples', 'retention'):
        _stretch(cfg.get('default_hooks', {}).get(name) or {}, ('interval',), count)
    if count > 1:  # true, and meant, of batches that only add to the gradient
        warnings.filterwarnings('ignore', message='Detected call of `scheduler.step')
    cfg.global_batch_size = 0  # done: a dumped config is not stretched twice
    print_log(f'{total} samples an update = {processes} process(es) x {batch_size} x {count} '
              'accumulated batches; the schedule counts batches.', logger='current')
    return count


def is_rl(cfg: Config) -> bool:
    """Whether a config trains by reinforcement learning: by :class:`.rl_loop.RLTrainLoop` or a
    loop derived from it, of whatever name."""
    return builds(LOOPS, cfg.train_cfg, RLTrainLoop)


def uses_deepspeed(cfg: Config) -> bool:
    """Whether DeepSpeed distributes the training."""
    return builds(STRATEGIES, cfg.get('strategy'), DeepSpeedStrategy)


def zero_stage(cfg: Config) -> int:
    """ZeRO's stage in the config of a ``DeepSpeedStrategy``; 0 where it names none."""
    return (cfg.strategy.get('zero_optimization') or {}).get('stage', 0)


def _prepare_deepspeed(cfg: Config) -> bool:
    """Whether DeepSpeed trains; tells it the batch of a process.

    Raises:
        ValueError: for what its flat partitions of the weights cannot do.
    """
    if not uses_deepspeed(cfg):
        return False
    faults = []
    if builds(OPTIMIZERS, cfg.optim_wrapper.get('optimizer'), MuonAdamW):
        faults.append('MuonAdamW has no matrices under DeepSpeed: set optim_wrapper as '
                      'configs/simpleseg/qwen25vl_zero2_sft_refcoco.py does')
    rl = is_rl(cfg)
    if rl and zero_stage(cfg) == 3 and (cfg.train_cfg.get('objective') or {}).get('beta'):
        faults.append('train_cfg.objective.beta > 0 compares with whole weights, which ZeRO-3 '
                      'splits: set beta=0, or strategy.zero_optimization.stage=2')
    if faults:
        raise ValueError(f"{'; '.join(faults)}. Or split the weights by FullyShardStrategy "
                         '(_base_/strategies/fsdp.py), which does both.')
    cfg.strategy.train_micro_batch_size_per_gpu = (
        cfg.train_cfg.get('micro_batch_size', 8) if rl else cfg.train_dataloader.batch_size)
    if rl:
        _check_accumulation(cfg, 'its micro-batches')
    return True


def _check_accumulation(cfg: Config, what: str) -> None:
    """Refuse what DeepSpeed 0.17.6 and 0.18.2 do: of accumulated batches ZeRO-2 keeps the last.
    0.18.9 has other code there."""
    try:
        version = tuple(map(int, metadata.version('deepspeed').split('.')[:3]))
    except (metadata.PackageNotFoundError, ValueError):
        return
    if zero_stage(cfg) == 2 and (0, 17) <= version < (0, 18, 9):
        raise ValueError(
            f'ZeRO-2 of DeepSpeed {metadata.version("deepspeed")} loses all but the last of '
            f'{what}. Take stage 1 or 3 (strategy.zero_optimization.stage), DeepSpeed 0.18.9 or '
            '0.16, or, in SFT, batches that need no accumulation (train_dataloader.batch_size x '
            'processes = global_batch_size)')


def _fit_prompts(cfg: Config, total: int, processes: int) -> int:
    """Prompts of a rollout: each process takes its share; the loop splits it by itself."""
    share, rest = divmod(total, processes)
    if rest:
        raise ValueError(f'global_batch_size={total} prompts a rollout do not divide among '
                         f'{processes} processes: {_divisors(total, processes)}, or change '
                         'global_batch_size')
    cfg.train_dataloader.batch_size = share
    cfg.global_batch_size = 0
    return 1


def _divisors(total: int, processes: int, batch_size: str = '') -> str:
    """What would divide a batch: sizes a process, else numbers of processes."""
    share, rest = divmod(total, processes)
    if batch_size and not rest and share:
        return f'{batch_size} may be {[i for i in range(1, share + 1) if share % i == 0]}'
    fitting = [i for i in range(1, total + 1) if total % i == 0]
    return f'the number of processes may be {fitting}'


def _stretch(section: dict, keys: Sequence[str], count: int) -> None:
    for key in keys:
        if section.get(key, -1) > 0:
            section[key] *= count


def scale_learning_rate(cfg: Config) -> None:
    """Let MMEngine scale the learning rate by the real batch, accumulated batches included."""
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise ValueError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the '
                         'config: the global batch that its learning rate was chosen for.')
    cfg.global_batch_size = 0
    cfg.auto_scale_lr.enable = True
    cfg.auto_scale_lr.base_batch_size /= accumulated_batches(cfg)


def find_resumable(work_dir: str) -> str | None:
    """The newest whole checkpoint of ``work_dir``; None where there is none.

    A damaged one is named and passed over: all of each is read, see
    :func:`~.checkpoint_file.fault_of`.
    """
    folder = Path(work_dir)
    paths = [p for p in folder.glob('*.pth') if re.fullmatch(r'(iter|epoch)_\d+', p.stem)]
    for path in sorted(paths, key=lambda p: int(p.stem.split('_')[1]), reverse=True):
        fault = fault_of(str(path))
        if not fault:
            return str(path)
        print_log(f'Passed over: {fault}', logger='current', level=logging.WARNING)
    return None


def find_checkpoint(name: str) -> str:
    """The checkpoint that a name means.

    Args:
        name: a file or folder of weights, as it is; or a run's folder (``work_dirs/NAME``): its
            best checkpoint where it keeps one (``save_best``), else its last; or ``RUN/best`` or
            ``RUN/last``, one of the two.

    Raises:
        FileNotFoundError: there is none; what there is is named.
        CheckpointError: it is an address.
    """
    refuse_address(name)
    path, which = _run_of(name)
    if path.is_file() or _is_weights(path):
        return name
    if not path.is_dir():
        raise FileNotFoundError(f'no checkpoint {name}'
                                + (_to_train_first(path) or what_is_there(path.parent)))
    if which != 'last' and (best := _best_of(path)):
        return best
    last = find_resumable(str(path)) if which != 'best' else None
    if last:
        return last
    if which == 'best' and any(path.glob('*.pth')):
        hint = f'{what_is_there(path)}; a run keeps a best one with ' \
               'default_hooks.checkpoint.save_best'
    else:
        hint = _to_train_first(path) or what_is_there(path)
    raise FileNotFoundError(f"no {which or 'best or last'} checkpoint in {path}{hint}")


def names_run(name: str) -> bool:
    """Whether a name is that of a run, so that :func:`find_checkpoint` looks into its folder:
    a folder with checkpoints, pointers to such, or logs, that is itself no weights."""
    path, _ = _run_of(name)
    return path.is_dir() and not _is_weights(path) and any(
        next(path.glob(pattern), None) is not None
        for pattern in ('*.pth', 'last_checkpoint', 'best_checkpoint', '*/vis_data'))


def _run_of(name: str) -> tuple[Path, str | None]:
    """What a name points to; of ``RUN/best`` and ``RUN/last`` the run's folder, and which."""
    path = Path(name).expanduser()
    if path.name in ('best', 'last') and not path.exists():
        return path.parent, path.name
    return path, None


def _is_weights(path: Path) -> bool:
    """A folder that is itself a checkpoint or Hugging Face's."""
    return path.is_dir() and (any((path / name).is_file() for name in (REST, 'config.json'))
                              or any(path.glob('*_model_states.pt')))


def _best_of(folder: Path) -> str | None:
    pointer = folder / 'best_checkpoint'
    if pointer.is_file():
        named = Path(pointer.read_text().strip())
        for path in (folder / named.name, named):
            if path.exists():
                return str(path)
    found = sorted(folder.glob('best_*.pth'), key=lambda path: path.stat().st_mtime)
    return str(found[-1]) if found else None


def _to_train_first(path: Path) -> str:
    """What makes a run of that name, as the end of a message; '' where it is not known."""
    root = _PACKAGE.parent / 'configs'
    made = {'sft': 'make quickstart', 'gspo': 'make quickstart'} if (
        path.parent.name == 'quickstart') else {
            file.stem: f'python tools/train.py {file.relative_to(root.parent)}'
            for file in root.glob('simpleseg/**/*.py')}
    if path.name in made:
        return (f'. Make it first, `{made[path.name]}`, or set load_from=CHECKPOINT (None: start '
                'from the weights that the model names)')
    return ''


def existing_checkpoint(name: str) -> str | None:
    """A checkpoint named to a tool, see :func:`find_checkpoint`; None for 'none', the config's
    own weights.

    Raises:
        FileNotFoundError: there is none of that name.
        ValueError: it is a config.
    """
    if name.lower() == 'none':
        return None
    if name.endswith('.py'):
        raise ValueError(f'{name} is a config: give the config first, then the checkpoint')
    try:
        return find_checkpoint(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. 'none' stands for the weights that the config names"
                                ) from None


def shorten_warm_up(cfg: Config) -> None:
    """Fit the schedule of the learning rate to a run that is no longer than its warm-up.

    The warm-up is then a tenth of the run, or none of less than 20 iterations, and what follows
    it begins there. Said in the log. Iterations are those of the config, before
    :func:`fit_global_batch` stretches them.

    Raises:
        ValueError: the run or its validation interval has no iteration.
    """
    total, interval = cfg.train_cfg.get('max_iters'), cfg.train_cfg.get('val_interval', 1)
    if total is None:
        return
    for name, value in dict(max_iters=total, val_interval=interval).items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f'train_cfg.{name}={value!r}: a whole number of at least 1')
    schedulers = [s for s in as_list(cfg.get('param_scheduler') or [])
                  if not s.get('by_epoch', True)]
    was = max([s.get('begin', 0) for s in schedulers]
              + [s.get('end', 0) for s in schedulers if warms_up(s)], default=0)
    if was < total:
        return
    short = total // 10 if total >= 20 else 0
    for scheduler in schedulers:
        for key in ('begin', 'end'):
            if scheduler.get(key, was + 1) <= was:
                scheduler[key] = round(scheduler[key] * short / was)
    cfg.param_scheduler = [
        s for s in as_list(cfg.param_scheduler) if s.get('by_epoch', True)
        or s.get('end', total) - s.get('begin', 0) >= (2 if warms_up(s) else 1)]
    print_log(f'The run of {total} iterations is no longer than its warm-up of {was}: the warm-up '
              f'is {short} iterations.', logger='current', level=logging.WARNING)


def warms_up(scheduler: dict) -> bool:
    """Whether a scheduler's config is one of a linear warm-up."""
    return builds(PARAM_SCHEDULERS, scheduler, LinearParamScheduler)


def as_list(evaluators) -> list:
    """A config's evaluators, of which a single one may stand alone."""
    return list(evaluators) if isinstance(evaluators, (list, tuple)) else [evaluators]


def default_work_dir(config: str) -> str:
    """``work_dirs/NAME`` for ``configs/.../NAME.py``."""
    return osp.join('work_dirs', osp.splitext(osp.basename(config))[0])


def build_runner(cfg: Config, *parts: str) -> Runner:
    """The runner of a config, which has its data before its model.

    A data set that is missing, or has its pictures elsewhere, is so told within seconds, and not
    after weights were loaded.

    Args:
        cfg: the config.
        parts: of ``train``, ``val`` and ``test``, what will be run.

    Raises:
        FileNotFoundError, ValueError: as the data sets raise, or their first, middle or last
            sample.
    """
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)

    class DataFirst(Runner):
        def build_model(self, model):
            spread = (self.cfg.get('randomness') or {}).get('diff_rank_seed', False)
            self.ready = []
            for settings in (self.cfg.get(f'{part}_dataloader') for part in parts):
                if isinstance(settings, dict):
                    loader = Runner.build_dataloader(settings, self.seed, spread)
                    self.ready.append((settings, loader))
                    _look_into(loader.dataset)
            return super().build_model(model)

        def build_dataloader(self, dataloader, *args, **kwargs):
            """What is there already: the loops ask for it."""
            for i, (settings, loader) in enumerate(self.ready):
                if settings == dataloader:
                    del self.ready[i]
                    return loader
            return Runner.build_dataloader(dataloader, *args, **kwargs)

    return DataFirst.from_cfg(cfg)


def _look_into(dataset) -> None:
    """Read a few samples; what is not a missing file is left to the run."""
    for index in sorted({0, len(dataset) // 2, len(dataset) - 1} if len(dataset) else ()):
        try:
            dataset[index]
        except FileNotFoundError:
            raise
        except Exception:  # the run says it, with its batch
            return


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End a tool with one line and status 2 where a user can mend what is wrong: a file that is
    missing or cannot be read or written, a full disk, a setting that the project refuses.

    What a library raises for other reasons keeps its traceback.
    """
    try:
        yield
    except (OSError, ValueError, TypeError) as error:
        if not _is_for_the_user(error):
            raise
        print(f'ERROR: {" ".join(str(error).split())}', flush=True)
        raise SystemExit(2) from None


def _is_for_the_user(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno is None or error.errno in _FILES
    if isinstance(error, TypeError):  # a setting that no signature has
        return 'got an unexpected keyword argument' in str(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return isinstance(error, CheckpointError) or Path(frame.filename).is_relative_to(_PACKAGE) or (
        frame.name == 'load_config')
