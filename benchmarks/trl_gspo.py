"""GSPO steps of TRL's ``GRPOTrainer``, unmodified: the peer of gspo_step.py.

The network, its LoRA adapters, its optimizer and every size come from the config that our side
runs. TRL reads a picture with every answer, where ours reads it once a prompt; it shuffles answers
over the updates, where ours learns prompt by prompt; and it generates by transformers.
"""
import statistics
import zlib
from collections.abc import Sequence
from unittest.mock import patch

import torch
from datasets import Dataset
from huggingface_hub import constants
from measure import device, now, peak_gib, released
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from PIL import Image
from torch import Tensor
from transformers import Qwen2_5_VLProcessor, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, prepare_multimodal_messages

from simpleseg_mm.models import MLLM, build_mllm

#: pictures, uint8 (3, H, W), and their prompts
Batch = tuple[Sequence[Tensor], Sequence[str]]

#: the chat template of nano's tokenizer, for messages in parts, as TRL makes them
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


class PictureProcessor(Qwen2_5_VLProcessor):
    """Qwen2.5-VL's own, without its video processor, which needs torchvision."""

    def __init__(self, image_processor, tokenizer, chat_template=None) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)


def picture(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).cpu().numpy())


def check_prompts(mllm: MLLM, processor: PictureProcessor, batch: Batch) -> None:
    """The peer must read the tokens and the pixels that our side reads.

    Raises:
        ValueError: it does not.
    """
    images, prompts = batch
    ours = mllm.encoder.encode(images, [[(prompt, None)] for prompt in prompts],
                               for_generation=True)
    theirs = processor.apply_chat_template(
        [prepare_multimodal_messages([dict(role='user', content=prompt)], [picture(image)])
         for image, prompt in zip(images, prompts)],
        add_generation_prompt=True, tokenize=True, return_dict=True,
        processor_kwargs=dict(padding=True, return_tensors='pt'))
    if ours.keys() != theirs.keys():
        raise ValueError(f'our side reads {sorted(ours)}, the peer {sorted(theirs)}')
    for key, value in ours.items():
        if value.shape != theirs[key].shape or not torch.allclose(
                value.float().cpu(), theirs[key].float(), atol=.02):  # a pixel's level is .015
            raise ValueError(f'the peer reads other {key}: {tuple(theirs[key].shape)}, our side '
                             f'{tuple(value.shape)}')


class Clock(TrainerCallback):
    """Seconds of each update; the first of a rollout begins with the rollout. What the data loader
    does between two updates is left out, as on our side."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args, state, control, **kwargs) -> None:
        self.start = now()

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.seconds.append(now() - self.start)


class Checksum:
    """The reward, and the tokens of each rollout."""
    __name__ = 'checksum'

    def __init__(self) -> None:
        self.tokens: list[int] = []

    def __call__(self, completions, completion_ids, **columns) -> list[float]:
        self.tokens.append(sum(map(len, completion_ids)))
        return [zlib.crc32(message['content'].encode()) / 2**32 for message, in completions]


def arguments(cfg: Config, rollouts: int, banned: list[int], folder: str) -> GRPOConfig:
    """The settings of a GSPO config, in TRL's names."""
    loop, rollout, objective = cfg.train_cfg, cfg.train_cfg.rollout, cfg.train_cfg.objective
    if loop.get('down_sample'):
        raise ValueError('TRL learns from all answers: leave train_cfg.down_sample out')
    rows = loop.global_batch_size * loop.group_size
    of_update = rows // loop.mini_batches
    at_once = min(loop.micro_batch_size, of_update)
    micro_batches = of_update // at_once
    return GRPOConfig(
        output_dir=folder, max_steps=rollouts * loop.mini_batches,
        per_device_train_batch_size=at_once,
        gradient_accumulation_steps=micro_batches,
        steps_per_generation=micro_batches * loop.mini_batches, num_generations=loop.group_size,
        max_completion_length=rollout.max_new_tokens, temperature=rollout.temperature,
        generation_kwargs=dict(suppress_tokens=banned), use_vllm=False,
        importance_sampling_level=objective.level, loss_type='grpo', epsilon=objective.clip_low,
        epsilon_high=objective.clip_high, beta=objective.beta,
        max_grad_norm=cfg.optim_wrapper.clip_grad.max_norm, lr_scheduler_type='constant',
        gradient_checkpointing=cfg.model.mllm.get('gradient_checkpointing', False),
        gradient_checkpointing_kwargs=dict(use_reentrant=False),
        bf16=False,  # no autocast: the weights are in the config's dtype, as ours
        use_cpu=not torch.cuda.is_available(), shuffle_dataset=False, save_strategy='no',
        logging_strategy='no', report_to='none', disable_tqdm=True)


def build(cfg: Config, batches: Sequence[Batch], folder: str, callbacks=()) -> GRPOTrainer:
    """A trainer of the config's network, with other random weights, for a rollout a batch."""
    init_default_scope(cfg.default_scope)
    with device():
        mllm = build_mllm({**cfg.model.mllm, 'acceleration': []})
    mllm.encoder.tokenizer.padding_side = 'left'  # as the trainer loads its own
    processor = PictureProcessor(mllm.family.image_processor, mllm.encoder.tokenizer,
                                 CHAT_TEMPLATE)
    for batch in batches:
        check_prompts(mllm, processor, batch)
    data = Dataset.from_list([
        dict(prompt=[dict(role='user', content=prompt)], image=picture(image))
        for images, prompts in batches for image, prompt in zip(images, prompts)])
    with patch.object(constants, 'HF_HUB_DISABLE_TELEMETRY', True):  # a trainer reports each start
        return GRPOTrainer(
            mllm.hf, Checksum(),
            arguments(cfg, len(batches), mllm.writer.banned_tokens, folder), data,
            processing_class=processor, callbacks=list(callbacks),
            optimizers=(build_optim_wrapper(mllm, cfg.optim_wrapper).optimizer, None))


def measure_steps(cfg: Config, batches: Sequence[Batch], folder: str) -> dict:
    """Figures of a step a batch, of which the first is warm-up.

    Args:
        cfg: as our side runs it.
        batches: the prompts of each step.
        folder: for what the trainer writes.

    Returns:
        ``rates`` (tokens a second of each step), ``seconds`` (their median), ``memory_gib``.
    """
    peak_gib(start=True)
    clock = Clock()
    trainer = build(cfg, batches, folder, [clock])
    with released(trainer.model):
        trainer.train()
    updates = cfg.train_cfg.mini_batches
    seconds = [sum(clock.seconds[i:i + updates])
               for i in range(0, len(clock.seconds), updates)]
    tokens = trainer.reward_funcs[0].tokens
    if len(clock.seconds) != updates * len(batches) or len(tokens) != len(batches):
        raise RuntimeError(f'{len(batches)} steps were asked for: the trainer made '
                           f'{len(clock.seconds)} updates and {len(tokens)} rollouts')
    return dict(rates=[count / s for count, s in zip(tokens[1:], seconds[1:])],
                seconds=round(statistics.median(seconds[1:]), 3),
                memory_gib=peak_gib())
