"""A hook that lets a person read what reinforcement learning learns from."""
import json
import os.path as osp

import numpy as np
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.utils import mkdir_or_exist

from simpleseg_mm.registry import HOOKS
from simpleseg_mm.samples import attach_answer
from simpleseg_mm.visualization import draw


@HOOKS.register_module()
class RolloutTableHook(Hook):
    """Write sampled answers with their rewards, as a table and as pictures.

    The table is ``rollouts/rollout_N.jsonl`` in the work directory, one answer a line: prompt,
    answer, every reward, advantage. The pictures are the visualizer's, one a prompt: its answers
    from the best to the worst.

    Args:
        interval: in rollouts; the first is always shown. -1: never.
        num_prompts: how many prompts are drawn; the table has all of this process.
        num_answers: how many answers of each are drawn, spread from the best to the worst.
    """

    priority = 'LOW'

    def __init__(self, interval: int = 20, num_prompts: int = 2, num_answers: int = 8):
        if num_prompts < 0 or num_answers < 2:
            raise ValueError(f'num_prompts={num_prompts}, num_answers={num_answers}: at least 0 '
                             'and 2; interval=-1 switches off.')
        self.interval = interval
        self.num_prompts = num_prompts
        self.num_answers = num_answers

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if self.interval > 0 and (runner.iter == 0
                                  or self.every_n_train_iters(runner, self.interval)):
            self._write(runner, runner.train_loop.experience)

    @master_only
    def _write(self, runner, experience) -> None:
        folder = osp.join(runner.work_dir, 'rollouts')
        mkdir_or_exist(folder)
        step = runner.iter + 1
        with open(osp.join(folder, f'rollout_{step}.jsonl'), 'w') as file:
            file.writelines(json.dumps(row) + '\n' for row in experience.rows())
        for p in range(min(self.num_prompts, len(experience.samples))):
            runner.visualizer.add_image(f'rollout_{p}', self._draw(runner, experience, p), step)

    def _draw(self, runner, experience, p: int) -> np.ndarray:
        """The answers to prompt ``p``, best first, in a sheet."""
        image = experience.images[p].permute(1, 2, 0).cpu().numpy()
        reward_G = experience.reward_PG[p].numpy()
        order = np.argsort(-reward_G, kind='stable')
        count = min(self.num_answers, len(order))
        panels = []
        for g in order[np.linspace(0, len(order) - 1, count).round().astype(int)]:
            sample = experience.samples[p].clone()
            answer = experience.rewards.queries[p * len(order) + g].answer
            attach_answer(sample, answer.at(sample.ori_shape[:2]))
            title = f'reward {reward_G[g]:.3f}   advantage {experience.advantage_PG[p, g]:+.2f}'
            panels.append(draw.add_title(runner.visualizer.draw_query(image, sample), title))
        return draw.contact_sheet(panels, columns=min(4, count))
