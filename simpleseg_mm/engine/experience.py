"""What a rollout brings in: answers, their rewards and advantages; and its figures for the log."""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.dist import all_reduce
from torch import Tensor

from ..rl import Rewards
from ..structures import Generated
from ..together import Faults


@dataclass
class Experience:
    """P prompts of this rank, G answers each, and what they were worth.

    Attributes:
        images: P uint8 tensors (3, H, W), RGB.
        samples: P data samples.
        answers: P lists of G answers.
        rewards: of the P * G answers, prompt by prompt.
        advantage_PG: of each answer, 0 where it is not learnt from.
        learnt_PG: bool, answers that are learnt from; none of a dropped group.
    """
    images: list[Tensor]
    samples: Sequence
    answers: list[list[Generated]]
    rewards: Rewards
    advantage_PG: Tensor
    learnt_PG: Tensor

    @property
    def reward_PG(self) -> Tensor:
        return torch.from_numpy(self.rewards.total).view(self.advantage_PG.shape)

    @property
    def dropped_P(self) -> Tensor:
        """Bool, groups that teach nothing."""
        return ~self.learnt_PG.any(1)

    def rows(self) -> list[dict]:
        """One row an answer: prompt, text, every reward, advantage."""
        size = self.advantage_PG.shape[1]
        rows = []
        for p, (sample, group) in enumerate(zip(self.samples, self.answers)):
            for g, answer in enumerate(group):
                i = p * size + g
                rows.append(dict(
                    img_id=sample.get('img_id'), prompt=sample.prompt, answer=answer.text,
                    finished=answer.finished, tokens=answer.num_tokens,
                    reward=float(self.rewards.total[i]),
                    **{name: None if math.isnan(values[i]) else float(values[i])
                       for name, values in self.rewards.components.items()},
                    advantage=float(self.advantage_PG[p, g]),
                    learnt=bool(self.learnt_PG[p, g])))
        return rows


def describe_rollout(experience: Experience) -> dict[str, Tensor]:
    """Figures of a rollout, means over all ranks: rewards, lengths, shares of answers; of a
    component that does not apply to all, the mean over the others, and the share ``_na``."""
    answers = [answer for group in experience.answers for answer in group]
    rewards = experience.rewards
    columns = dict(
        reward=rewards.total,
        **{f'reward_{name}': values for name, values in rewards.components.items()},
        reward_std=experience.reward_PG.std(1).numpy(),
        length=[answer.num_tokens for answer in answers],
        truncated=[not answer.finished for answer in answers],
        valid_parse=[query.answer.well_formed for query in rewards.queries],
        dropped_groups=experience.dropped_P)
    table = [torch.as_tensor(values).double() for values in columns.values()]
    counts = torch.stack([(~values.isnan()).double().mean() for values in table])
    sums = torch.stack([values.nan_to_num().mean() for values in table])
    both = torch.stack([sums, counts])
    all_reduce(both, 'mean')  # every rank has as many prompts
    figures = {}
    for name, total, share in zip(columns, *both):
        if share:
            figures[name] = total / share
        if share < 1:
            figures[f'{name}_na'] = 1 - share
    return figures


class UpdateFigures:
    """Figures summed over this rank's answers, averaged over all ranks'."""

    def __init__(self, names: Sequence[str], compared: bool = False) -> None:
        # the same on all ranks, kept groups or not; they stay on the device until they are read
        self.figures = dict.fromkeys(names, 0.0)
        self.count = 0
        self.answer_tokens = 0
        self.updates: list[Tensor] = []
        #: what this process has against an update
        self.faults = Faults()
        #: of an engine's log-probabilities: sum of the differences, tokens, the largest
        self.difference = [0.0, 0.0, 0.0] if compared else None

    def compare(self, difference_BT: Tensor, mask_BT: Tensor) -> None:
        """Takes in how far an engine is off, 0 outside the mask."""
        total, count, largest = self.difference
        self.difference = [total + float(difference_BT.sum()), count + float(mask_BT.sum()),
                           max(largest, float(difference_BT.max()))]

    def add(self, figures: dict[str, Tensor], mask_BT: Tensor) -> None:
        for name, value in figures.items():
            self.figures[name] = self.figures[name] + value.detach().double()
        self.count += len(mask_BT)
        self.answer_tokens = self.answer_tokens + mask_BT.sum()

    def means(self) -> dict[str, Tensor]:
        row = torch.tensor([*map(float, self.figures.values()), self.count], dtype=torch.float64)
        all_reduce(row)
        means = dict(zip(self.figures, row / row[-1].clamp(min=1)))
        loss = torch.stack(self.updates).mean() if self.updates else torch.zeros(())
        if self.difference is not None:
            both = torch.tensor(self.difference[:2], dtype=torch.float64)
            largest = torch.tensor(self.difference[2], dtype=torch.float64)
            all_reduce(both)
            all_reduce(largest, 'max')
            means.update(engine_difference=both[0] / both[1].clamp(min=1),
                         engine_difference_max=largest)
        return dict(loss=loss, **means, answer_tokens=torch.tensor(float(self.answer_tokens)))
