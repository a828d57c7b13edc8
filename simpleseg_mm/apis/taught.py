"""What a model was taught, and what to say where it is asked for something else."""
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..datasets.base import registered_dataset
from ..datasets.refshapes import NAME as REFSHAPES
from ..datasets.refshapes import is_scene
from ..polygon import Task
from ..structures import Prompt

#: what would do where a model knows RefShapes alone
INSTEAD = ('For photos give a network that has learnt them: --model sthui/SimpleSeg-Qwen2.5-VL (a '
           'GPU of 24 GB), or one that you train; docs/inference.md says how')
#: config, folder and model of the packaged networks, whose data is known without a config
_PACKAGED = 'simpleseg_mm://nano'


@dataclass(frozen=True)
class Taught:
    """What a training has shown a model.

    Attributes:
        sets: names of the datasets; empty where it is not known.
        prompts: of 'text', 'point' and 'box', those that it was asked by; empty where it is not
            known.
        outlines: False where nothing says that it has seen any.
    """
    sets: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    outlines: bool = True

    @classmethod
    def of(cls, cfg: Mapping) -> 'Taught':
        """By a config's ``taught=dict(sets, prompts, outlines)``, else by its training data."""
        said = cfg.get('taught')
        if said is not None:
            return cls(tuple(said.get('sets', ())), tuple(said.get('prompts', ())),
                       said.get('outlines', True))
        sets: dict = {}
        prompts: dict = {}
        loader = cfg.get('train_dataloader')
        _look(loader.get('dataset') if isinstance(loader, Mapping) else None, sets, prompts)
        pretrained = str((cfg.get('model') or {}).get('mllm', {}).get('pretrained') or '')
        if not sets and pretrained.startswith(_PACKAGED):
            sets = {REFSHAPES: None}
        return cls(tuple(sets), tuple(sorted(prompts)))

    def to_dict(self) -> dict:
        """Lists, as :meth:`of` reads them."""
        said = dict(sets=list(self.sets), prompts=list(self.prompts))
        return said if self.outlines else dict(said, outlines=False)

    def doubts(self, picture: np.ndarray, prompt: Prompt) -> tuple[str, ...]:
        """Why an answer may mean nothing, a sentence each.

        Args:
            picture: (H, W, 3) uint8 RGB.
        """
        found = []
        if not self.outlines:
            found.append('nothing says that these weights were taught outlines (there is no '
                         'simpleseg.json beside them): the answer is a guess. Train them, '
                         'docs/own_mllm.md says how')
        if self.sets == (REFSHAPES, ) and not is_scene(picture):
            found.append('this model has learnt the generated scenes of RefShapes and nothing '
                         'else, and this picture is none: the outline is a guess, whatever its '
                         f'confidence. {INSTEAD}')
        if self.prompts and prompt.kind not in self.prompts:
            found.append(f'this model was taught to answer {_listed(self.prompts)}, not '
                         f'{_PLURALS[prompt.kind]}: the outline is a guess')
        return tuple(found)


_PLURALS = dict(text='expressions', point='points', box='boxes')


def _listed(kinds: tuple[str, ...]) -> str:
    names = [_PLURALS[kind] for kind in Prompt.KINDS if kind in kinds]
    return ' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)


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
        if weight and task and task.wanted == 'mask' and task.given in Prompt.KINDS:
            prompts[task.given] = None
