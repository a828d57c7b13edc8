"""What every multimodal LLM must offer to SimpleSeg: tokens in, hidden states or text out."""
import copy
import inspect
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from mmengine.logging import print_log
from torch import Tensor, nn
from transformers import (AutoConfig, AutoModelForImageTextToText, AutoTokenizer,
                          PreTrainedTokenizerBase)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import cached_file

from ...files import chat_template_of, from_folder
from ...registry import MODELS
from ..attention import PACKED, SEGMENTS
from ..fused import adapters_in_place, fuse, patches_as_rows
from ..generation import pinned
from ..packing import pack_rows
from ..resources import packaged
from ..transfer import sent
from .writing import AnswerWriter

IGNORE = -100
#: what stands in a batch beside the network's own inputs
_NOT_READ = ('labels', 'image_index', 'picture_places', 'answer_places', 'answer_tokens',
             'answer_mask', 'answer_slots')
#: of ``apply_chat_template`` itself
_TEMPLATE_WORDS = set(inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters)
#: (prompt, answer) pairs; an answer may be given as the token ids that were written
Turns = Sequence[tuple[str, str | Sequence[int] | None]]


class MLLMAdapter(AnswerWriter, nn.Module):
    """A transformers ``AutoModelForImageTextToText`` with its tokenizer and image processor.

    A subclass says how images become tensors and placeholder tokens (:meth:`encode_images`),
    which tokens must never be written, and where the parts of the network are.

    Args:
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
        packing: train on rows without padding, laid end to end (:meth:`pack`). Needs 'sdpa'; not
            done, and said in the log, where a layer has other than full attention.
        fused: on a GPU, compute norms, rotations and gates by compiled kernels (``fused.py``),
            which the first steps compile; that needs a C compiler.
        system_prompt: ``None`` leaves the chat template's own default.
        chat_template_kwargs: keywords of the chat template, such as ``enable_thinking=True``. A
            template that begins answers with an open thought has it closed unless told otherwise.
    """
    #: ``model_type`` of the configs that it reads; empty: any
    families: tuple[str, ...] = ()
    #: name of the part -> prefixes of its parameters below the transformers model
    parts: dict[str, tuple[str, ...]] = {}
    #: whether the network takes ``mm_token_type_ids`` (B, T), 1 where a picture's token stands
    takes_token_types = False
    #: whether :meth:`token_positions` is there, which ``packing`` needs
    can_pack = False
    #: ``save_original_format`` of transformers' ``save_pretrained``
    saves_original_format = True

    def __init__(self,
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
                 packing: bool = False,
                 fused: bool = False,
                 system_prompt: str | None = None,
                 chat_template_kwargs: dict | None = None) -> None:
        super().__init__()
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
        if packing and not (self.can_pack and attn_implementation == 'sdpa'):
            raise ValueError(f'packing=True: {type(self).__name__} with attn_implementation='
                             f"{attn_implementation!r} cannot; QwenVL with 'sdpa' can. "
                             'Set packing=False')
        processor = locate(processor or pretrained)
        hf_config = (AutoConfig.for_model(**config) if config is not None
                     else from_folder(AutoConfig.from_pretrained, locate(pretrained)))
        self._check_family(hf_config.model_type, pretrained)
        self.system_prompt, self.packing = system_prompt, packing
        self.tokenizer = from_folder(AutoTokenizer.from_pretrained, processor)
        self._check_tokenizer(processor)
        # A call with another setting switches a tokenizer's state, also for other threads. So one
        # object reads special tokens and another reads them as text, each from here on.
        self.tokenizer.split_special_tokens = False
        self._text_tokenizer = copy.deepcopy(self.tokenizer)
        self._text_tokenizer.split_special_tokens = True
        self._ids('')
        self.chat_template_kwargs = dict(chat_template_kwargs or {})
        if taken := sorted(self.chat_template_kwargs.keys() & _TEMPLATE_WORDS):
            raise ValueError(f'chat_template_kwargs={chat_template_kwargs}: {taken} are not '
                             'keywords of a template')
        self._template = self._read_template()
        self._choose_thoughts()
        self._skeleton = tuple(self.tokenizer.encode(part, add_special_tokens=False)
                               for part in self._template)
        #: kinds of batches (``for_generation``) whose first has not been checked
        self._unchecked = {True, False}
        self.image_processor = self.build_image_processor(processor, min_pixels, max_pixels)
        options = dict(dtype=getattr(torch, dtype), attn_implementation=attn_implementation)
        if init == 'pretrained':
            if quantization:
                options['quantization_config'] = self._quantization(quantization)
            self.hf = load_weights(locate(pretrained), **options)
            for module in self.hf.modules():
                # bitsandbytes lays 4-bit weights out anew when a CPU first infers, for good, and
                # has no gradient from there
                if hasattr(module, 'support_avx512bf16_for_cpu'):
                    module.support_avx512bf16_for_cpu = False
        else:
            self.hf = AutoModelForImageTextToText.from_config(
                hf_config, trust_remote_code=False, **options)
        #: keys by which the folder's generation_config.json asks for another way of writing
        self.hf.generation_config, self.asked_generation = pinned(self.hf.generation_config)
        if packing:
            layers = set(getattr(self.hf.config.get_text_config(), 'layer_types', None) or ())
            if layers - {'full_attention'}:
                self.packing = False
                print_log('packing=True needs full attention in every layer, or rows would read '
                          f'each other; this network has {sorted(layers)}: packing=False is '
                          'taken', 'current')
            else:
                self.hf.model.language_model.set_attn_implementation(PACKED)
        if attn_implementation == 'sdpa':
            vision = self.hf.get_submodule(self.parts['vision'][0].rstrip('.'))
            vision.config._attn_implementation = SEGMENTS
        patches_as_rows(self.hf)
        if fused and torch.cuda.is_available():
            fuse(self.hf)
        self.hf.train()
        self._check_parts([*freeze, *train_with_lora])
        self._select_trainable(freeze, lora, train_with_lora)
        if gradient_checkpointing:
            self._recompute(float(gradient_checkpointing))

    # --- what a subclass provides -------------------------------------------------------------
    def build_image_processor(self, folder: str, min_pixels: int | None,
                              max_pixels: int | None):
        """The image processor of a folder, without torchvision where that is absent."""
        raise NotImplementedError

    def encode_images(self, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        """uint8 (3, H, W) images -> keyword tensors of the model, number of tokens an image."""
        raise NotImplementedError

    @property
    def image_token(self) -> str:
        """The placeholder that stands for one visual token in the text."""
        raise NotImplementedError

    @property
    def image_markup(self) -> str:
        """What stands in the user's turn for one picture, with one ``image_token``."""
        raise NotImplementedError

    @property
    def banned_tokens(self) -> list[int]:
        """Ids that break the model when written: placeholders of pictures and videos."""
        raise NotImplementedError

    def token_positions(self, batch: dict[str, Tensor]) -> Tensor:
        """Positions (3, B, T) of an encoded batch's tokens, as the network counts them."""
        raise NotImplementedError

    # --- encoding -----------------------------------------------------------------------------
    def encode(self, images: Sequence[Tensor], conversations: Sequence[Turns],
               for_generation: bool = False,
               share_images: bool = False) -> dict[str, Tensor]:
        """Pictures and conversations -> a padded batch on the CPU.

        Whatever runs the network takes it to the device (:meth:`to_device`): a thread that
        prepares batches must not wait for the device's queue.

        Args:
            images: B uint8 tensors (3, H, W), RGB; sizes may differ.
            conversations: B lists of (prompt, answer) turns about the picture. An answer given
                as token ids is taken as it is: it ends with an end token, or was cut.
            for_generation: stop after the last prompt and pad on the left; else keep the
                answers, pad on the right and give labels.
            share_images: encode a picture object that stands in several rows once.

        Returns:
            The model's keyword tensors: ``input_ids``, ``attention_mask`` and, where the network
            takes them, ``mm_token_type_ids`` (B, T), those of :meth:`encode_images`, and for
            training ``labels`` (B, T): the ids of answers and their end tokens, -100 elsewhere.
            Where rows share a picture, ``image_index``, B numbers, says which one is whose.

        Raises:
            ValueError: in the first batch for training, or for generation, a prompt is not what
                the chat template writes.
        """
        images = list(images)
        places: dict[int, int] = {}
        index = [places.setdefault(id(image) if share_images else i, len(places))
                 for i, image in enumerate(images)]
        unique = {place: image for place, image in zip(index, images)}
        visual, counts = self.encode_images(list(unique.values()))
        ids = self._ids_of({text for turns in conversations for turn in turns for text in turn
                            if isinstance(text, str)})
        rows = [self._encode_row(turns, counts[place], ids, for_generation)
                for turns, place in zip(conversations, index)]
        if for_generation in self._unchecked:
            self._check_prompt(rows[0][0], conversations[0], counts[index[0]])
            self._unchecked.discard(for_generation)
        left = for_generation
        batch = dict(
            input_ids=_pad([ids for ids, _ in rows], self.pad_token_id, left),
            attention_mask=_pad([[1] * len(ids) for ids, _ in rows], 0, left))
        if self.takes_token_types:
            batch['mm_token_type_ids'] = (batch['input_ids'] == self.image_token_id).long()
        if not for_generation:
            batch['labels'] = _pad([labels for _, labels in rows], IGNORE, left)
        batch.update((key, value.cpu()) for key, value in visual.items())
        if len(unique) < len(index):
            batch['image_index'] = index
        return batch

    def _encode_row(self, turns: Turns, num_image_tokens: int, ids_of: dict[str, list[int]],
                    for_generation: bool) -> tuple[list[int], list[int]]:
        before, after, opening, end, between, close, middle = self._skeleton
        head = before + [self.image_token_id] * num_image_tokens + after
        ids: list[int] = []
        labels: list[int] = []

        def add(new: list[int], train: bool) -> None:
            ids.extend(new)
            labels.extend(new if train else [IGNORE] * len(new))

        for i, (prompt, answer) in enumerate(turns):
            last = i == len(turns) - 1
            add((between if i else head) + ids_of[prompt] + (opening if last else middle), False)
            if for_generation and last:
                break
            add(ids_of[answer] + end if isinstance(answer, str) else list(answer), True)
            if last:
                add(close, False)
        return ids, labels

    def _check_family(self, kind: str, folder: str | None) -> None:
        if self.families and kind not in self.families:
            others = [name for name, cls in MODELS.module_dict.items()
                      if kind in getattr(cls, 'families', ())]
            raise ValueError(f'{type(self).__name__} reads {", ".join(self.families)}, and '
                             f'{folder or "`config`"} is a {kind}: ' + (
                                 f"set model.mllm.type='{others[0]}'" if others else
                                 'write an adapter for it (docs/own_mllm.md)'))

    def _check_tokenizer(self, folder: str) -> None:
        # As transformers' processors: the file of that name, else chat_template.json, which only
        # processors read, else the tokenizer's own.
        if _file(folder, 'chat_template.jinja') is None:
            legacy = _file(folder, 'chat_template.json')
            template = None if legacy is None else chat_template_of(legacy.parent)
            self.tokenizer.chat_template = template or self.tokenizer.chat_template
        if not self.tokenizer.chat_template:
            raise ValueError(f'the tokenizer in {folder} has no chat template: add the model\'s '
                             'chat_template.jinja to that folder')
        if self.image_token not in self.tokenizer.get_vocab():
            raise ValueError(f'the tokenizer in {folder} has no token {self.image_token!r}, which '
                             f'stands for a picture in {type(self).__name__}: take the adapter '
                             'of the tokenizer\'s family, or another `processor`')

    def _ids(self, text: str) -> list[int]:
        return self._ids_of([text])[text]

    def _ids_of(self, texts: Iterable[str]) -> dict[str, list[int]]:
        """The tokens of each text, by one call of the tokenizer."""
        texts = list(texts)
        if not texts:
            return {}
        # a sentence that spells a special token stays text
        return dict(zip(texts, self._text_tokenizer(texts, add_special_tokens=False)['input_ids']))

    def _read_template(self) -> tuple[str, ...]:
        """Constant texts of a conversation, from the tokenizer's own chat template: up to the
        picture's tokens, from there to the first prompt, from the last prompt to its answer, the
        end of an answer, from there to the next prompt, to the end of the conversation, and from
        an earlier prompt to its answer.

        The last answer begins as the template has it asked for, which is not everywhere how it
        writes a finished one: templates with thoughts, or with a blank before an answer.
        """
        faults = []
        for in_parts in (True, False):  # as is official; simple templates take plain text alone
            try:
                return self._frame(in_parts)
            except (ValueError, TypeError, TemplateError) as error:
                faults.append(' '.join(str(error).split()))
        raise ValueError(f'the chat template of {self.tokenizer.name_or_path} cannot be used: '
                         f'{faults[-1]}')

    def _frame(self, in_parts: bool) -> tuple[str, ...]:
        """:meth:`_read_template` with messages of plain text, or in parts of text and picture."""
        p1, a1, p2 = '<<P1>>', '<<A1>>', '<<P2>>'

        def turn(role: str, text: str, picture: bool = False) -> dict:
            content = (self.image_markup if picture else '') + text
            if in_parts:
                content = [dict(type='image')] * picture + [dict(type='text', text=text)]
            return dict(role=role, content=content)

        def render(messages: list[dict], asked: bool) -> str:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=asked, **self.chat_template_kwargs)

        def cut(text: str, marks: Sequence[str]) -> list[str]:
            parts = []
            for mark in marks:
                part, found, text = text.partition(mark)
                if not found:
                    raise ValueError('it does not write what is said')
                parts.append(part)
            return [*parts, text]

        first = [] if self.system_prompt is None else [turn('system', self.system_prompt)]
        first += [turn('user', p1, picture=True)]
        going = [*first, turn('assistant', a1), turn('user', p2)]
        head, opening = cut(render(first, True), [p1])
        told, middle, between, again = cut(render(going, True), [p1, a1, p2])
        _, _, after = cut(render(going[:-1], False), [p1, a1])
        if (told, again) != (head, opening):
            raise ValueError('it begins a conversation, or an answer, by what follows it')
        pictures = head.count(self.image_token)
        if pictures != 1:
            raise ValueError(f'it writes {pictures} times {self.image_token!r} for one picture')
        end = self.tokenizer.eos_token
        if not end or not (between.startswith(end) and after.startswith(end)):
            raise ValueError(f'it must end an answer with the end token {end!r}; it writes '
                             f'{after!r}. Set the tokenizer\'s eos_token accordingly')
        return (*head.split(self.image_token), opening, end, between[len(end):],
                after[len(end):], middle)

    def _choose_thoughts(self) -> None:
        """Where the template begins every answer with a thought, and has the keyword, the thought
        is closed: what is asked for is the outline."""
        if not _thinks(self._template[2]):
            return
        if 'enable_thinking' not in self.chat_template_kwargs:
            self.chat_template_kwargs['enable_thinking'] = False
            self._template = self._read_template()
        print_log(
            'the chat template begins an answer with an open thought (<think>): ' + (
                'answers are written inside it' if _thinks(self._template[2]) else
                'it is closed by enable_thinking=False. model.mllm.chat_template_kwargs='
                'dict(enable_thinking=True) leaves it open'), 'current')

    def _check_prompt(self, ids: list[int], turns: Turns, num_image_tokens: int) -> None:
        """ValueError unless a row begins as the chat template writes it, and each special token
        of the template is one id."""
        prompt, opening = turns[0][0], 2 if len(turns) == 1 else -1
        before, after, middle = *self._template[:2], self._template[opening]
        before += self.image_token * num_image_tokens + after
        length = (sum(map(len, self._skeleton[:2])) + num_image_tokens + len(self._ids(prompt))
                  + len(self._skeleton[opening]))
        special = {i: token.content for i, token in self.tokenizer.added_tokens_decoder.items()
                   if token.special}
        names = sorted(map(re.escape, special.values()), key=len, reverse=True)
        given = [special[i] for i in ids[:length] if i in special]
        wanted = re.findall('|'.join(names), before + middle)
        if given == wanted:
            given, wanted = (
                self.tokenizer.decode(row, clean_up_tokenization_spaces=False) for row in (
                    ids[:length],
                    self.tokenizer.encode(before + prompt + middle, add_special_tokens=False)))
        if given == wanted:
            return
        if isinstance(given, str):
            start = max(len(os.path.commonprefix([given, wanted])) - 20, 0)
            given, wanted = given[start:start + 60], wanted[start:start + 60]
        else:
            given, wanted = (list(dict.fromkeys(names)) for names in (given, wanted))
        raise ValueError(
            f'the tokens of a prompt are not those of the chat template of '
            f'{self.tokenizer.name_or_path}: it has {given!r}, the template {wanted!r}. Take the '
            'tokenizer that the model was released with')

    @property
    def device(self) -> torch.device:
        return next(self.hf.parameters()).device

    @property
    def image_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(self.image_token)

    @property
    def pad_token_id(self) -> int:
        pad = self.tokenizer.pad_token_id
        return self.tokenizer.eos_token_id if pad is None else pad

    @property
    def stop_tokens(self) -> list[int]:
        """Every id that ends an answer: the tokenizer's and the generation config's."""
        listed = self.hf.generation_config.eos_token_id
        listed = listed if isinstance(listed, list) else [listed]
        size = self.hf.get_input_embeddings().num_embeddings
        return sorted({self.tokenizer.eos_token_id,
                       *(i for i in listed if type(i) is int and 0 <= i < size)})

    def generation_settings(self) -> dict[str, Any]:
        """Content of the ``generation_config.json`` of an exported folder, by which transformers
        and vLLM, which knows no ``do_sample``, write what :meth:`generate` does."""
        end = self.tokenizer.eos_token_id
        return dict(bos_token_id=self.hf.generation_config.bos_token_id,
                    eos_token_id=[end, *(i for i in self.stop_tokens if i != end)],
                    pad_token_id=self.pad_token_id, do_sample=False, temperature=0.0,
                    repetition_penalty=1.0)

    def pack(self, batch: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """A batch for training with its padding left out: rows end to end in one row (1, N), and
        what rows of one picture begin with, once (:func:`pack_rows`).

        Every token keeps its position and attends to its own row alone, so states and gradients
        are those of the padded batch. Unchanged without ``packing``.

        Returns:
            the batch without ``labels``, and where in it each token's state stands (B, T).
        """
        batch = {key: value for key, value in batch.items() if key != 'labels'}
        ids = batch['input_ids']
        if not self.packing:
            return batch, torch.arange(ids.numel()).view(ids.shape)
        positions, real = self.token_positions(batch), batch.pop('attention_mask').bool()
        packed = pack_rows(ids, real, batch.pop('image_index', range(len(ids))))
        for key in ('input_ids', 'mm_token_type_ids'):
            if key in batch:
                batch[key] = batch[key].flatten()[packed.order][None]
        return dict(batch, position_ids=positions.flatten(1)[:, packed.order][:, None],
                    shared=packed.shared, apart=packed.places, together=packed.order,
                    borders=packed.borders), packed.places

    # --- running ------------------------------------------------------------------------------
    def to_device(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """An encoded batch where the network is. A GPU takes it in the order of its work, and
        nothing waits for that."""
        device = self.device
        return {key: sent(value, device) if isinstance(value, Tensor) else value
                for key, value in batch.items()}

    def hidden_states(self, batch: dict[str, Tensor]) -> Tensor:
        """Last hidden states (B, T, D) of an encoded batch, before the head."""
        return self._run(batch, use_cache=False).last_hidden_state

    @property
    def head_weight(self) -> Tensor:
        """(V, D) weight of the language head."""
        return self.hf.get_output_embeddings().weight

    def _run(self, batch: dict[str, Tensor], **options):
        inputs = {key: value for key, value in self.to_device(batch).items()
                  if key not in _NOT_READ}
        if 'image_index' not in batch:
            return self.hf.model(**inputs, **options)
        with self.share_images(inputs, batch['image_index']):
            return self.hf.model(**inputs, **options)

    @contextmanager
    def share_images(self, inputs: dict[str, Tensor], index: Sequence[int]) -> Iterator[None]:
        """Within, the vision tower runs once a picture; row b reads picture ``index[b]``.

        For networks whose ``get_image_features(pixel_values, image_grid_thw)`` gives one
        ``pooler_output`` a picture; others override this. ``inputs['image_grid_thw']`` becomes
        that of the rows.
        """
        model, grid = self.hf.model, inputs['image_grid_thw']
        inputs['image_grid_thw'] = grid[index]  # positions are by row
        original = model.get_image_features

        def once(pixel_values, image_grid_thw=None, **options):
            output = original(pixel_values, grid, **options)
            output.pooler_output = [output.pooler_output[i] for i in index]
            if getattr(output, 'deepstack_features', None) is not None:  # Qwen3-VL, by layer
                output.deepstack_features = [[layer[i] for i in index]
                                             for layer in output.deepstack_features]
            return output

        model.get_image_features = once
        try:
            yield
        finally:
            del model.get_image_features

    # --- what is trained ----------------------------------------------------------------------
    def part_of(self, name: str) -> str | None:
        """The part that owns a parameter of the transformers model, by its name."""
        found = [(len(prefix), part) for part, prefixes in self.parts.items()
                 for prefix in prefixes if name.startswith(prefix)]
        return max(found)[1] if found else None  # the longest prefix wins

    def _check_parts(self, names: Sequence[str]) -> None:
        unknown = sorted(set(names) - set(self.parts))
        if unknown:
            raise ValueError(f'unknown parts {unknown}; {type(self).__name__} has '
                             f'{sorted(self.parts)}')

    def _quantization(self, keys: dict):
        from transformers import BitsAndBytesConfig
        from transformers.utils import is_bitsandbytes_available
        if not is_bitsandbytes_available():
            raise ImportError('`quantization` needs bitsandbytes: pip install bitsandbytes')
        whole = [prefix.rstrip('.') for part, prefixes in self.parts.items() if part != 'llm'
                 for prefix in prefixes]
        return BitsAndBytesConfig(**{'llm_int8_skip_modules': [*whole, 'lm_head'], **keys})

    def _select_trainable(self, freeze: Sequence[str], lora: dict | None,
                          train_with_lora: Sequence[str]) -> None:
        if lora is not None:
            from peft import LoraConfig, inject_adapter_in_model
            try:
                inject_adapter_in_model(LoraConfig(**lora), self.hf)
            except (TypeError, ValueError) as error:
                keys = ' '.join(str(error).split())
                raise ValueError(f'lora={dict(lora)}: {keys}. Give keys of peft.LoraConfig, as '
                                 'configs/_base_/models/lora_llm.py does') from None
            adapters_in_place(self.hf)
        for name, parameter in self.hf.named_parameters():
            if 'lora_' in name:
                parameter.data = parameter.to(self.hf.dtype)  # peft's choice depends on the device
            part = self.part_of(name.replace('.base_layer', ''))
            if lora is not None:
                parameter.requires_grad_('lora_' in name or part in train_with_lora)
            else:
                parameter.requires_grad_(part not in freeze)
        trainable = sum(p.numel() for p in self.parameters() if p.requires_grad)
        total = sum(map(num_values, self.parameters()))
        print_log(f'{type(self).__name__}: {trainable:,} of {total:,} parameters are trained',
                  'current')

    def _recompute(self, share: float) -> None:
        enable = getattr(self.hf, 'activation_checkpointing_enable',  # newer releases' name
                         self.hf.gradient_checkpointing_enable)
        enable(dict(use_reentrant=False))
        # It lets pictures and embeddings ask for a gradient, which only reentrant checkpoints
        # need: a frozen vision tower would be run again and backwards for nothing.
        self.hf.disable_input_require_grads()
        layers = [layer for name, layer in self.hf.named_modules()
                  if isinstance(layer, GradientCheckpointingLayer)
                  and self.part_of(f'{name}.') == 'llm']
        # The last layers' activations are given back before the first layers compute theirs.
        for layer in layers[round(share * len(layers)):]:
            layer.gradient_checkpointing = False


def _thinks(opening: str) -> bool:
    """Whether an answer that begins so is the middle of a thought."""
    return opening.rfind('<think>') > opening.rfind('</think>')


def num_values(parameter: Tensor) -> int:
    """Numbers that a parameter holds: 4-bit ones stand in pairs."""
    return parameter.numel() * (2 if parameter.dtype == torch.uint8 else 1)


def _file(folder: str, name: str) -> Path | None:
    """A file of a local folder, or of a hub id; None where there is none."""
    found = cached_file(folder, name, _raise_exceptions_for_gated_repo=False,
                        _raise_exceptions_for_missing_entries=False,
                        _raise_exceptions_for_connection_errors=False)
    return None if found is None else Path(found)


def locate(folder: str) -> str:
    """``simpleseg_mm://NAME`` -> the packaged folder; anything else as it is."""
    scheme = 'simpleseg_mm://'
    return str(packaged(folder[len(scheme):])) if folder.startswith(scheme) else folder


def load_weights(folder: str, **options):
    """``AutoModelForImageTextToText.from_pretrained``, where every weight must fit.

    transformers draws missing weights at random with a warning; here that is an error.

    Raises:
        FileNotFoundError, ValueError: as :func:`from_folder`; the latter also names every
            weight that is missing, unknown or of another shape.
    """
    model, info = from_folder(AutoModelForImageTextToText.from_pretrained, folder,
                              output_loading_info=True, ignore_mismatched_sizes=True, **options)
    mismatched = [f'{name} {tuple(given)} for {tuple(expected)}'
                  for name, given, expected in sorted(info['mismatched_keys'])]
    check_names(folder, missing=info['missing_keys'], unknown=info['unexpected_keys'],
                of_another_shape=mismatched)
    return model


def check_names(where: str, **kinds: Iterable[str]) -> None:
    """ValueError that names every weight of every kind, where there is one."""
    found = [f'{kind.replace("_", " ")}: {", ".join(sorted(names))}'
             for kind, names in kinds.items() if names]
    if found:
        raise ValueError(f'the weights of {where} do not fit its config. {"; ".join(found)}. '
                         'Fetch the folder again, or correct its config.json')


def _pad(rows: list[list[int]], value: int | float, left: bool) -> Tensor:
    width = max(map(len, rows))
    padded = [[value] * (width - len(row)) + row if left else row + [value] * (width - len(row))
              for row in rows]
    return torch.tensor(padded)
