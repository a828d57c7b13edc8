"""What a model was taught, and what to say where it is asked for something else."""
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from .scenes import NAME as REFSHAPES
from .scenes import is_scene
from .structures import Prompt

#: what would do where a model knows RefShapes alone
INSTEAD = ('For photos give a network that has learnt them: --model sthui/SimpleSeg-Qwen2.5-VL (a '
           'GPU of 24 GB), or one that you train; docs/inference.md says how')
#: ways to ask, as ``Taught.prompts`` names them, in words
ASKED = dict(text='expressions', point='points', box='boxes', all='questions for all instances',
             everything='questions for all objects with their names')


@dataclass(frozen=True)
class Taught:
    """What a training has shown a model.

    Attributes:
        sets: names of the datasets; empty where it is not known.
        prompts: of 'text', 'point', 'box', 'all' (every instance of a text) and 'everything' (all
            objects with their names), those that it was asked by; empty where it is not known.
        outlines: False where nothing says that it has seen any.
    """
    sets: tuple[str, ...] = ()
    prompts: tuple[str, ...] = ()
    outlines: bool = True

    @classmethod
    def from_dict(cls, said: Mapping) -> 'Taught':
        """By what :meth:`to_dict` gives."""
        return cls(tuple(said.get('sets', ())), tuple(said.get('prompts', ())),
                   said.get('outlines', True))

    def to_dict(self) -> dict:
        """Lists, as :meth:`from_dict` reads them."""
        said = dict(sets=list(self.sets), prompts=list(self.prompts))
        return said if self.outlines else dict(said, outlines=False)

    def knows(self, kind: str) -> bool:
        """Whether it was asked by prompts of this kind; True, too, where that is not known."""
        return not self.prompts or kind in self.prompts

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
        asked = 'everything' if prompt.everything else 'all' if prompt.all else prompt.kind
        if not self.knows(asked):
            found.append(f'this model was taught to answer {_listed(self.prompts)}, not '
                         f'{ASKED[asked]}: the outline is a guess')
        return tuple(found)


def _listed(kinds: tuple[str, ...]) -> str:
    names = [ASKED[kind] for kind in ASKED if kind in kinds]
    return ' and '.join([', '.join(names[:-1]), names[-1]] if len(names) > 1 else names)
