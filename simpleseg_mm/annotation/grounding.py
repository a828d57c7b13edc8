"""Grounding-DINO and MM-Grounding-DINO of transformers: images and labels in, boxes out.

The process that runs the stage loads torch and transformers; others do without them.
"""
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from simpleseg_mm.files import from_folder

if TYPE_CHECKING:
    import torch

DETECTORS = ('grounding-dino', 'mm-grounding-dino')


def pick_device(device: str | None) -> str:
    """The named device, or else a GPU where there is one."""
    import torch
    return device or ('cuda' if torch.cuda.is_available() else 'cpu')


class Grounder:
    """A detector of free text.

    Args:
        pretrained: local folder or hub id.
        dtype: of the weights, such as 'float32' or 'float16'.
        device: None takes a GPU where there is one.
    """

    def __init__(self, pretrained: str, dtype: str = 'float32', device: str | None = None) -> None:
        import torch
        from transformers import (AutoConfig, AutoImageProcessor,
                                  AutoModelForZeroShotObjectDetection, AutoTokenizer)
        family = from_folder(AutoConfig.from_pretrained, pretrained).model_type
        if family not in DETECTORS:
            raise ValueError(f'{pretrained} is a {family}; a detector here is one of {DETECTORS}')
        self.tokenizer = from_folder(AutoTokenizer.from_pretrained, pretrained)
        self.image_processor = from_folder(AutoImageProcessor.from_pretrained, pretrained)
        self.model = from_folder(
            AutoModelForZeroShotObjectDetection.from_pretrained, pretrained,
            dtype=getattr(torch, dtype)).eval().to(pick_device(device))
        self.max_tokens = self.model.config.max_text_len

    def split(self, labels: Sequence[str]) -> list[list[str]]:
        """Labels in groups whose prompts the text encoder can take, order kept."""
        groups: list[list[str]] = [[]]
        used = 2
        for label in labels:
            tokens = len(self.tokenizer.tokenize(f'{label}. '))
            if groups[-1] and used + tokens > self.max_tokens:
                groups.append([])
                used = 2
            groups[-1].append(label)
            used += tokens
        return groups

    def __call__(self, images: Sequence[np.ndarray], labels: Sequence[Sequence[str]]
                 ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ground the labels of each image in it.

        Args:
            images: ``(H, W, 3) uint8`` RGB.
            labels: of each image; together no longer than the text encoder takes.

        Returns:
            Of each image boxes ``(Q, 4)`` x1, y1, x2, y2 pixels and scores ``(Q, L)``: the
            highest probability of a label's tokens. All queries, NaN where the model wrote NaN.
        """
        import torch
        prompts, spans = zip(*(_prompt(group) for group in labels))
        text = self.tokenizer(list(prompts), return_tensors='pt', padding=True, truncation=True,
                              max_length=self.max_tokens, return_offsets_mapping=True)
        offsets = text.pop('offset_mapping')
        model = self.model
        inputs = {**text, **self.image_processor(images=list(images), return_tensors='pt')}
        inputs = {name: value.to(model.device, model.dtype if value.is_floating_point() else None)
                  for name, value in inputs.items() if name in (
                      'input_ids', 'attention_mask', 'token_type_ids', 'pixel_values',
                      'pixel_mask')}
        with torch.inference_mode():
            output = model(**inputs)
        probabilities = output.logits.float().sigmoid().cpu()
        boxes = output.pred_boxes.float().cpu().numpy().astype(np.float64)
        found = []
        for number, image in enumerate(images):
            height, width = image.shape[:2]
            centre, size = boxes[number][:, :2], boxes[number][:, 2:]
            corners = np.concatenate([centre - size / 2, centre + size / 2], axis=1)
            scores = [_span_score(probabilities[number], offsets[number], span)
                      for span in spans[number]]
            found.append((corners * [width, height, width, height],
                          torch.stack(scores, 1).numpy().astype(np.float64)))
        return found


@lru_cache(maxsize=2)
def get_grounder(pretrained: str, dtype: str, device: str | None) -> Grounder:
    """One copy of the weights a process: detecting and verifying share it."""
    return Grounder(pretrained, dtype, device)


def _prompt(labels: Sequence[str]) -> tuple[str, list[tuple[int, int]]]:
    """'a cat. a dog.' and where each label stands in it."""
    text, spans = '', []
    for label in labels:
        label = label.lower().replace('.', ' ').strip() or 'thing'
        start = len(text)
        text += f'{label}. '
        spans.append((start, start + len(label)))
    return text.strip(), spans


def _span_score(probabilities: 'torch.Tensor', offsets: 'torch.Tensor',
                span: tuple[int, int]) -> 'torch.Tensor':
    """Highest probability ``(Q,)`` of the tokens that begin within a span of characters."""
    first, last = offsets.T
    inside = ((first >= span[0]) & (first < span[1]) & (last > first)).nonzero()[:, 0]
    if not len(inside):  # cut off with the end of a long prompt
        return probabilities.new_zeros(len(probabilities))
    return probabilities[:, inside].amax(1)
