"""What ``tools/train.py`` and ``tools/test.py`` do to a config before they start a runner."""
import logging
import os.path as osp
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.optim import LinearParamScheduler
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from ..commands.faults import is_of_files, line_of
from ..config import accumulated_batches, config_root
from ..registry import LOOPS, METRICS, OPTIMIZERS, PARAM_SCHEDULERS, STRATEGIES, builds
from .checkpoint_content import REST, CheckpointError
from .checkpoint_file import fault_of, refuse_address, what_is_there
from .global_batch import batches_an_update, prompts_a_process
from .optimizers import MuonAdamW
from .rl_loop import RLTrainLoop
from .sft_loop import refuse_accumulation
from .sharding import DeepSpeedStrategy

_PACKAGE = Path(__file__).resolve().parent.parent


def check_training(cfg: Config, processes: int) -> int:
    """Refuse, before anything is loaded, what the loop or the strategy of a config cannot do.

    The config stays as it is: the loop itself reaches ``train_cfg.global_batch_size``.

    Returns:
        batches of a process that make an update; 1 in reinforcement learning, whose loop makes
        its own.

    Raises:
        ValueError: the processes cannot reach the batch, the config accumulates by itself as
            well, or its strategy cannot split its quantized weights or do what the loop asks.
    """
    if cfg.get('model', {}).get('mllm', {}).get('quantization') and cfg.get('strategy'):
        raise ValueError(f"model.mllm.quantization under {cfg.strategy.get('type')}: weights of "
                         'few bits are not split; leave `strategy` out (several processes then '
                         'hold the weights once each), or train without quantization')
    rl = is_rl(cfg)
    if uses_deepspeed(cfg):
        _check_weights_of_deepspeed(cfg, rl)
    settings = cfg.train_cfg
    batch = (settings.get('global_batch_size'), cfg.train_dataloader.batch_size, processes)
    if rl:
        prompts_a_process(*batch)
        count = 1
    else:
        count = batches_an_update(*batch)
        if batch[0]:
            refuse_accumulation(cfg)
    if uses_deepspeed(cfg) and (rl or count > 1):
        _check_accumulation(cfg, 'its micro-batches' if rl else f'{count} accumulated batches')
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


def _check_weights_of_deepspeed(cfg: Config, rl: bool) -> None:
    """Refuse what DeepSpeed's flat partitions of the weights cannot do.

    Raises:
        ValueError: what that is.
    """
    faults = []
    if builds(OPTIMIZERS, cfg.optim_wrapper.get('optimizer'), MuonAdamW):
        faults.append('MuonAdamW has no matrices under DeepSpeed: set optim_wrapper as '
                      'configs/simpleseg/qwen25vl_zero2_sft_refcoco.py does')
    if rl and zero_stage(cfg) == 3 and (cfg.train_cfg.get('objective') or {}).get('beta'):
        faults.append('train_cfg.objective.beta > 0 compares with whole weights, which ZeRO-3 '
                      'splits: set beta=0, or strategy.zero_optimization.stage=2')
    if faults:
        raise ValueError(f"{'; '.join(faults)}. Or split the weights by FullyShardStrategy "
                         '(_base_/strategies/fsdp.py), which does both.')


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


def scale_learning_rate(cfg: Config) -> None:
    """Let MMEngine scale the learning rate by the real batch, accumulated batches included."""
    if not cfg.get('auto_scale_lr', {}).get('base_batch_size'):
        raise ValueError('--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in the '
                         'config: the global batch that its learning rate was chosen for.')
    cfg.train_cfg.global_batch_size = None
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


def whole_checkpoint(name: str) -> str:
    """The same, of a file read to its end: said before a model is loaded, and read once.

    Raises:
        FileNotFoundError, CheckpointError: as :func:`find_checkpoint`; or it is damaged, or no
            checkpoint.
    """
    path = find_checkpoint(name)
    if Path(path).expanduser().is_file() and (fault := fault_of(str(Path(path).expanduser()))):
        raise CheckpointError(fault)
    return path


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
    made = {'sft': 'make quickstart', 'gspo': 'make quickstart'} if (
        path.parent.name == 'quickstart') else {
            file.stem: f'simpleseg train {file.stem}'
            for file in (config_root() / 'configs').glob('simpleseg/**/*.py')}
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
        return whole_checkpoint(name)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}. 'none' stands for the weights that the config names"
                                ) from None


def shorten_warm_up(cfg: Config) -> None:
    """Fit the schedule of the learning rate to a run that is no longer than its warm-up.

    The warm-up is then a tenth of the run, or none of less than 20 iterations, and what follows
    it begins there. Said in the log. MMEngine's schedules are told where they begin and end
    before there is a loop, so it is the config that is changed.

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


def check_save_best(cfg: Config) -> None:
    """Refuse a ``save_best`` that no metric writes, before the first validation would.

    Raises:
        ValueError: what the figures' names begin with.
    """
    best = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    metrics = as_list(cfg.get('val_evaluator') or [])
    prefixes = {metric.get('prefix') or getattr(METRICS.get(metric['type']), 'default_prefix',
                                                None) for metric in metrics}
    if None in prefixes:  # its figures may have any name
        return
    for name in as_list(best or []):
        if prefixes and name != 'auto' and name.partition('/')[0] not in prefixes:
            raise ValueError(f'default_hooks.checkpoint.save_best is {name!r}; no metric of '
                             'val_evaluator writes it: their figures begin with '
                             + ', '.join(f'{prefix}/' for prefix in sorted(prefixes)))


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
    """Read a few samples; what is no missing file, and nothing that this package refuses, is left
    to the run."""
    for index in sorted({0, len(dataset) // 2, len(dataset) - 1} if len(dataset) else ()):
        try:
            dataset[index]
        except FileNotFoundError:
            raise
        except Exception as error:  # the run says others, with their batch
            if isinstance(error, ValueError) and _is_ours(error):
                raise
            return


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End a tool with one line and status 2 where a user can mend what is wrong: a file that is
    missing or cannot be read or written, a full disk, a setting that the project refuses, a
    package that it needs for what was asked.

    What a library raises for other reasons keeps its traceback.
    """
    try:
        yield
    except (ImportError, OSError, ValueError, TypeError) as error:
        if not _is_for_the_user(error):
            raise
        print(f'ERROR: {line_of(error)}', flush=True)
        raise SystemExit(2) from None


def _is_for_the_user(error: Exception) -> bool:
    if isinstance(error, OSError):
        return is_of_files(error)
    if isinstance(error, ImportError) and 'pip install' in str(error):  # MMEngine's trackers
        return True
    if isinstance(error, TypeError):  # a setting that no signature has
        return 'got an unexpected keyword argument' in str(error)
    return isinstance(error, CheckpointError) or _is_ours(error) or (
        traceback.extract_tb(error.__traceback__)[-1].name == 'load_config')


def _is_ours(error: Exception) -> bool:
    """Whether this package has raised it."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return Path(frame.filename).is_relative_to(_PACKAGE)
