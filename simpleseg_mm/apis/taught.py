"""What a config's training teaches its model."""
from collections.abc import Mapping

from ..datasets.base import registered_dataset
from ..polygon import Task
from ..scenes import NAME as REFSHAPES
from ..structures import Prompt
from ..taught import Taught

#: config, folder and model of the packaged networks, whose data is known without a config
_PACKAGED = 'simpleseg_mm://nano'


def taught_by(cfg: Mapping) -> Taught:
    """By a config's ``taught=dict(sets, prompts, outlines)``, else by its training data."""
    if cfg.get('taught') is not None:
        return Taught.from_dict(cfg['taught'])
    sets: dict = {}
    prompts: dict = {}
    loader = cfg.get('train_dataloader')
    _look(loader.get('dataset') if isinstance(loader, Mapping) else None, sets, prompts)
    pretrained = str((cfg.get('model') or {}).get('mllm', {}).get('pretrained') or '')
    if not sets and pretrained.startswith(_PACKAGED):
        sets = {REFSHAPES: None}
    return Taught(tuple(sets), tuple(sorted(prompts)))


def _look(dataset, sets: dict, prompts: dict) -> None:
    """Names of the sets that a dataset's config joins, and of what their queries give.

    The config may come from a checkpoint: what is malformed tells nothing.
    """
    if not isinstance(dataset, Mapping):
        return
    parts = dataset.get('datasets')
    if isinstance(parts, (list, tuple)):
        for part in parts:
            _look(part, sets, prompts)
        return
    kind = str(dataset.get('type') or '').rpartition('.')[2]
    if not kind:
        return
    sources = dataset.get('sources')
    names = [source.get('name') for source in sources if isinstance(source, Mapping)] \
        if isinstance(sources, (list, tuple)) else []
    own = getattr(registered_dataset(kind), 'set_name', None) or dataset.get('name') or kind
    sets.update((str(name), None) for name in names or [own])
    query = dataset.get('query')
    tasks = query.get('tasks') if isinstance(query, Mapping) else None
    tasks = tasks if isinstance(tasks, Mapping) else {'text2mask': 1.0}
    for name, weight in tasks.items():
        task = Task.find(name)
        if not (weight and task and task.single.wanted == 'mask'):
            continue
        if task.named:
            prompts['everything'] = None
        elif task.given in Prompt.KINDS:
            prompts['all' if task.many else task.given] = None
