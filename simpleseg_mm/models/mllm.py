"""A multimodal LLM of four parts: family, encoder, network, writer."""
from collections.abc import Sequence
from functools import cached_property

from transformers import (CONFIG_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoConfig,
                          AutoTokenizer)

from ..acceleration import Acceleration, check_measures  # nothing else imports it
from ..files import from_folder
from ..files.packaged import locate
from ..registry import FAMILIES
from .encoder import Encoder
from .network import Network
from .probing import check_network
from .trial import Trial
from .writer import Writer


class MLLM(Network):
    """A :class:`Network` with the :class:`Encoder` of what it reads and the :class:`Writer` of
    what it answers, ``encoder`` and ``writer``.

    Args:
        family: a name of the registry ``FAMILIES``, such as 'QwenVL' or 'AutoVLM'; in a config,
            ``type`` of ``model.mllm``.
        pretrained: local folder, hub id, or ``simpleseg_mm://NAME`` for weights that ship with
            the package. Gives the weights, the tokenizer and the image processor.
        config: keys of the transformers configuration to build from instead of the folder's
            (with ``model_type``); the weights are then random. ``None``: the folder's.
        processor: folder of tokenizer and image processor, where it is not ``pretrained``.
        init: 'pretrained' loads weights; 'random' draws them with the current torch seed.
        dtype: of the weights, such as 'float32' or 'bfloat16'.
        min_pixels, max_pixels: bounds of the resized image's area; ``None``: the folder's.
        freeze: parts that are not trained, of 'vision', 'projector' and 'llm'.
        lora: keys of ``peft.LoraConfig``; everything but the adapters (and the parts that
            ``train_with_lora`` names) is then frozen.
        train_with_lora: parts trained in full beside LoRA.
        quantization: keys of ``transformers.BitsAndBytesConfig``: the language model's matrices
            are held in 4 or 8 bits below the adapters (QLoRA); everything else, the head
            included, in ``dtype``. Needs ``lora``, pretrained weights and bitsandbytes.
        gradient_checkpointing: recompute activations in the backward pass; as a number, those of
            this share of the language model's layers alone: its last layers keep theirs.
        attn_implementation: as in transformers.
        acceleration: measures of :mod:`simpleseg_mm.acceleration` by name; 'auto' takes what
            applies, and the log says what is on, and what is off and why; ``[]``: none.
        system_prompt: ``None`` leaves the chat template's own default.
        chat_template_kwargs: keywords of the chat template, such as ``enable_thinking=True``. A
            template that begins answers with an open thought has it closed unless told otherwise.

    Raises:
        ValueError: settings that do not go together, or a folder that does not fit them; one line.
    """

    def __init__(self,
                 family: str,
                 pretrained: str | None = None,
                 config: dict | None = None,
                 processor: str | None = None,
                 init: str = 'pretrained',
                 dtype: str = 'float32',
                 min_pixels: int | None = None,
                 max_pixels: int | None = None,
                 freeze: Sequence[str] = (),
                 lora: dict | None = None,
                 train_with_lora: Sequence[str] = (),
                 quantization: dict | None = None,
                 gradient_checkpointing: bool | float = False,
                 attn_implementation: str = 'sdpa',
                 acceleration: str | Sequence[str] = 'auto',
                 system_prompt: str | None = None,
                 chat_template_kwargs: dict | None = None) -> None:
        if init not in ('pretrained', 'random'):
            raise ValueError(f"init={init!r}: allowed are 'pretrained' and 'random'")
        if (processor or pretrained) is None:
            raise ValueError('give `pretrained`, or `processor` for the tokenizer and the image '
                             'processor of a model with random weights')
        if config is not None and init == 'pretrained':
            raise ValueError("`config` builds another network than the folder's: "
                             "set init='random'")
        if quantization and (lora is None or init == 'random'):
            raise ValueError('`quantization` holds pretrained weights in few bits, which cannot '
                             "be trained: set lora=dict(...) and init='pretrained'")
        if not 0 <= gradient_checkpointing <= 1:
            raise ValueError(f'gradient_checkpointing={gradient_checkpointing}: give True, False '
                             'or the share of layers that recompute, between 0 and 1')
        cls = family_named(family)
        check_measures(acceleration, cls)
        folder = locate(processor or pretrained)
        hf_config = (AutoConfig.for_model(**config) if config is not None
                     else from_folder(AutoConfig.from_pretrained, locate(pretrained)))
        check_family(cls, hf_config.model_type, pretrained)
        tokenizer = from_folder(AutoTokenizer.from_pretrained, folder)
        known = cls(folder, hf_config, tokenizer, min_pixels, max_pixels)
        known.check_template(folder)
        if known.image_token not in known.tokenizer.get_vocab():
            raise ValueError(f'the tokenizer in {folder} has no token {known.image_token!r}, '
                             f'which stands for a picture in {family}: take the family of the '
                             'tokenizer, or another `processor`')
        encoder = Encoder(known, folder, system_prompt, chat_template_kwargs)
        super().__init__(known, hf_config, pretrained if init == 'pretrained' else None, dtype,
                         freeze, lora, train_with_lora, quantization, gradient_checkpointing,
                         attn_implementation)
        self.encoder = encoder
        self.writer = Writer(self, encoder)
        if not known.model_types:
            check_network(self, drawn=init == 'random')
        self.acceleration = Acceleration(self, acceleration)

    @cached_property
    def trial(self) -> Trial:
        """The small batch on which what makes it faster is held to the plain path."""
        return Trial(self)


def build_mllm(config: dict) -> MLLM:
    """An :class:`MLLM` by its config, whose ``type`` names the family."""
    options = dict(config)
    if 'family' in options:
        raise ValueError(f'model.mllm.family={options["family"]!r}: the family is named by '
                         '`type`: set model.mllm.type')
    return MLLM(options.pop('type', 'AutoVLM'), **options)


def family_named(name: str) -> type:
    """A class of the registry ``FAMILIES``; ValueError lists the names that there are."""
    cls = FAMILIES.get(name)
    if cls is None:
        raise ValueError(f'model.mllm.type={name!r}: there is no such family. There are '
                         f'{", ".join(sorted(FAMILIES.module_dict))}; a family of your own is '
                         'registered in simpleseg_mm.registry.FAMILIES (docs/own_mllm.md)')
    return cls


def check_family(cls: type, model_type: str, folder: str | None) -> None:
    """ValueError where a family does not read networks of this type; it names one that does."""
    if not cls.model_types or model_type in cls.model_types:
        return
    others = [name for name, other in FAMILIES.module_dict.items()
              if model_type in other.model_types]
    known = (model_type in CONFIG_MAPPING
             and CONFIG_MAPPING[model_type] in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)
    remedy = (f"set model.mllm.type='{others[0] if others else 'AutoVLM'}'" if others or known
              else 'transformers has no network of this type that reads pictures and writes text')
    raise ValueError(f'{cls.__name__} reads {", ".join(cls.model_types)}, and '
                     f'{folder or "`config`"} is a {model_type}: {remedy}')
