"""The network: loaded, trained in part, run from ids and pictures to hidden states."""
import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText

from ..files.packaged import locate
from .families import Family
from .generation import pinned
from .loading import load_network
from .step_cache import StepCache
from .to_device import to_device
from .trainable import (check_parts, keep_layout, part_of, quantization_config, recompute,
                        select_trainable)

#: what stands in a batch beside the network's own inputs
BOOKKEEPING = ('labels', 'image_index', 'picture_places', 'answer_places', 'answer_tokens',
               'answer_mask', 'answer_slots', 'stays_on_cpu')


class Network(nn.Module):
    """A transformers ``AutoModelForImageTextToText``, unmodified.

    What makes it faster (:mod:`simpleseg_mm.acceleration`) hooks in at three places, and each
    has a plain path: :attr:`layouts`, :attr:`run_model` and :attr:`caches`.

    Args:
        family: of the network.
        hf_config: its configuration.
        pretrained: folder or hub id of the weights; ``None``: random ones.
        dtype: of the weights, such as 'float32' or 'bfloat16'.
        freeze: parts that are not trained.
        lora: keys of ``peft.LoraConfig``.
        train_with_lora: parts trained in full beside LoRA.
        quantization: keys of ``transformers.BitsAndBytesConfig``.
        gradient_checkpointing: share of the language model's layers that recompute.
        attn_implementation: as in transformers.
    """

    def __init__(self, family: Family, hf_config, pretrained: str | None, dtype: str,
                 freeze: Sequence[str], lora: dict | None, train_with_lora: Sequence[str],
                 quantization: dict | None, gradient_checkpointing: float,
                 attn_implementation: str) -> None:
        super().__init__()
        self.family, self.attention = family, attn_implementation
        options = dict(dtype=getattr(torch, dtype), attn_implementation=attn_implementation)
        if pretrained is None:
            try:
                self.hf = AutoModelForImageTextToText.from_config(
                    hf_config, trust_remote_code=False, **options)
            except (ImportError, ValueError) as error:  # such as an attention that is not there
                raise ValueError(f'{hf_config.model_type} cannot be built: '
                                 f'{" ".join(str(error).split())[:300]}') from None
        else:
            if quantization:
                options['quantization_config'] = quantization_config(quantization, family.parts)
            self.hf = load_network(locate(pretrained), **options)
            keep_layout(self.hf)
        #: keys by which the folder's generation_config.json asks for another way of writing
        self.hf.generation_config, self.asked_generation = pinned(self.hf.generation_config)
        #: (batch, places) -> the same, laid out otherwise for training; see :meth:`lay_out`
        self.layouts: list[Callable] = []
        #: (inputs, options) -> transformers' output
        self.run_model: Callable = self._run_model
        #: (KV cache, mask, rows) -> a cache that answers are written with, or ``None``
        self.caches: list[Callable] = []
        #: whether a picture of several rows may stand once in a batch (``image_index``)
        self.shares_images = False
        self.hf.train()
        name = type(family).__name__
        check_parts([*freeze, *train_with_lora], family.parts, name)
        select_trainable(self.hf, family.parts, freeze, lora, train_with_lora, name)
        if gradient_checkpointing:
            recompute(self.hf, family.parts, float(gradient_checkpointing))

    @property
    def device(self) -> torch.device:
        return next(self.hf.parameters()).device

    def part_of(self, name: str) -> str | None:
        """The part that owns a parameter of the transformers model, by its name."""
        return part_of(name, self.family.parts)

    # --- running ------------------------------------------------------------------------------
    def lay_out(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """A batch for training as the network is to read it, without ``labels``, and where in it
        each token's state stands (B, T)."""
        batch = {key: value for key, value in batch.items() if key != 'labels'}
        ids = batch['input_ids']
        places = torch.arange(ids.numel()).view(ids.shape)
        for layout in self.layouts:
            batch, places = layout(batch, places)
        return batch, places

    def to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """An encoded batch where the network is, pictures in its dtype. A GPU takes it in the
        order of its work, and nothing waits for that."""
        device, stay = self.device, batch.get('stays_on_cpu', ())
        batch = {key: to_device(value, device)
                 if isinstance(value, Tensor) and key not in stay else value
                 for key, value in batch.items()}
        if 'pixel_values' in batch:
            batch['pixel_values'] = batch['pixel_values'].to(self.hf.dtype)
        return batch

    def hidden_states(self, batch: dict[str, Tensor]) -> Tensor:
        """Last hidden states (B, T, D) of an encoded batch, before the head."""
        return self.run(batch, use_cache=False).last_hidden_state

    def run(self, batch: dict[str, Tensor], **options):
        """transformers' output for an encoded batch, its pictures included.

        Raises:
            ValueError: pictures' placeholders are not as many as their features.
        """
        return self.run_model(self.to_device(batch), **options)

    def _run_model(self, batch: dict[str, Tensor], **options):
        inputs = {key: value for key, value in batch.items() if key not in BOOKKEEPING}
        return self.hf.model(**inputs, **options)

    def positions(self, batch: dict[str, Tensor]) -> Tensor:
        """Positions (B, T) of an encoded batch's tokens, or (3, B, T) where the network counts
        time, height and width."""
        count = getattr(self.hf.model, 'get_rope_index', None)
        if count is None:
            return (batch['attention_mask'].cumsum(1) - 1).clamp(min=0)
        if 'image_index' in batch:
            batch = dict(batch, image_grid_thw=batch['image_grid_thw'][batch['image_index']])
        names = inspect.signature(count).parameters
        return count(**{key: value for key, value in batch.items() if key in names})[0]

    def cache(self, kv_cache, mask_BP: Tensor, rows: Tensor):
        """The cache that rows of answers are written with, after prompts that have been read."""
        for make in self.caches:
            if (cache := make(kv_cache, mask_BP, rows)) is not None:
                return cache
        return StepCache(kv_cache, mask_BP, rows)

    # --- the head -----------------------------------------------------------------------------
    @property
    def head_weight(self) -> Tensor:
        """(V, D) weight of the language head."""
        return self.hf.get_output_embeddings().weight

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., V) float32 of hidden states (..., D)."""
        return (hidden @ self.head_weight.T).float()
