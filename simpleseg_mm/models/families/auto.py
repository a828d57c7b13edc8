"""Any ``AutoModelForImageTextToText``, by its own ``AutoProcessor``."""
import inspect
from collections.abc import Iterator, Sequence
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, AutoModelForImageTextToText,
                          AutoProcessor)
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from ...files import from_folder
from ...registry import FAMILIES
from .base import Family, Head

#: what a processor gives for the text
_OF_TEXT = ('input_ids', 'attention_mask', 'token_type_ids', 'mm_token_type_ids')

#: in names of a vision tower's parts that map its features for the language model
_PROJECTORS = ('merger', 'projector', 'connector')


@FAMILIES.register_module()
class AutoVLM(Family):
    """A family that is known by its folder alone: the processor writes the placeholders and makes
    the tensors, and parts are found by what they are. Arguments as in :class:`Family`.

    Raises:
        ValueError: ``min_pixels`` or ``max_pixels`` are given, the folder has no processor or no
            chat template, or the network is not built of a vision tower and a language model that
            continues a text; one line.
    """
    acceleration = ('packed_rows', )

    def __init__(self, folder: str, config, tokenizer, min_pixels: int | None = None,
                 max_pixels: int | None = None) -> None:
        if type(config) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
            raise ValueError(f'{config.model_type}: transformers knows no network of this type '
                             'that reads pictures and writes text; give one, such as '
                             'OpenGVLab/InternVL3-1B-hf')
        self.processor = load_processor(folder, config)
        super().__init__(folder, config, self.processor.tokenizer, min_pixels, max_pixels)
        token = getattr(self.processor, 'image_token', None)
        if not token:
            raise ValueError(f'{type(self.processor).__name__} names no token that stands for a '
                             'picture (image_token); write its family (docs/own_mllm.md)')
        self.image_token = str(token)
        self.image_markup = self._markup()
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        names = inspect.signature(self._model.forward).parameters
        self.token_types = next((name for name in _OF_TEXT[2:] if name in names), None)

    def build_image_processor(self, folder: str, min_pixels: int | None, max_pixels: int | None):
        if min_pixels or max_pixels:
            raise ValueError('min_pixels and max_pixels: each processor bounds its pictures by '
                             'other settings; set them in preprocessor_config.json of '
                             f'{folder}')
        return self.processor.image_processor

    def check_template(self, folder: str) -> None:
        if not self.processor.chat_template:
            self.processor.chat_template = self.tokenizer.chat_template
        if not self.processor.chat_template:
            raise ValueError(f'the processor in {folder} has no chat template: add the model\'s '
                             'chat_template.jinja to that folder. A model without one, such as '
                             'PaliGemma, holds no conversation and cannot be used')

    def render(self, messages: list[dict], **options) -> str:
        return self.tokenizer.apply_chat_template(
            messages, chat_template=self.processor.chat_template, tokenize=False, **options)

    def _markup(self) -> str:
        """A picture's token between those by which the config says that one begins and ends."""
        for kind in ('vision', 'image'):
            around = [getattr(self.config, f'{kind}_{end}_token_id', None)
                      for end in ('start', 'end')]
            if all(type(i) is int for i in around):
                start, end = self.tokenizer.convert_ids_to_tokens(around)
                return f'{start}{self.image_token}{end}'
        return self.image_token

    def read(self, images: Sequence[Tensor], head: Head
             ) -> tuple[dict[str, Tensor], list[list[int]]]:
        found = self._process([head.text] * len(images), images)
        ids = [row[mask.bool()].tolist()
               for row, mask in zip(found['input_ids'], found['attention_mask'])]
        return {key: value for key, value in found.items()
                if isinstance(value, Tensor) and key not in _OF_TEXT
                and key not in getattr(self.processor, 'unused_input_names', ())}, ids

    def official(self, text: str, image: Tensor) -> dict[str, list[int]]:
        return {key: value[0].tolist() for key, value in self._process([text], [image]).items()
                if key in _OF_TEXT}

    def _process(self, texts: list[str], images: Sequence[Tensor]):
        pictures = [[Image.fromarray(image.cpu().permute(1, 2, 0).numpy())] for image in images]
        return self.processor(text=texts, images=pictures, padding=True, return_tensors='pt',
                              add_special_tokens=False)  # the template writes them

    @cached_property
    def image_token_id(self) -> int:
        """Of the token whose states are a picture's features."""
        for name in ('image_token_id', 'image_token_index'):
            if type(found := getattr(self.config, name, None)) is int:
                return found
        return self.tokenizer.convert_tokens_to_ids(self.image_token)

    @cached_property
    def banned_tokens(self) -> list[int]:
        """Every id that the processor, the tokenizer or the config names for pictures, videos or
        sound, and special tokens that say so."""
        found = {self.image_token_id, *(getattr(self.processor, 'image_token_ids', None) or ())}
        for thing in (self.processor, self.tokenizer, self.config):
            for name, value in vars(thing).items():
                if name.endswith(('token_id', 'token_index')) and _of_pictures(name):
                    found.add(value)
        found.update(i for i, token in self.tokenizer.added_tokens_decoder.items()
                     if token.special and _of_pictures(token.content))
        size = self.skeleton.get_output_embeddings().weight.shape[0]
        return sorted(i for i in found if type(i) is int and 0 <= i < size)

    @cached_property
    def skeleton(self):
        """The network without weights."""
        with torch.device('meta'):
            try:
                return AutoModelForImageTextToText.from_config(self.config,
                                                               trust_remote_code=False)
            except ImportError as error:
                raise _lacking(self.config.model_type, error) from None

    @property
    def _model(self) -> nn.Module:
        """Of the skeleton, what lies below the head."""
        model = getattr(self.skeleton, 'model', None)
        if (model is None or self.config.is_encoder_decoder
                or self.skeleton.get_output_embeddings() is None):
            raise ValueError(f'{type(self.skeleton).__name__} is not a language model that '
                             'continues a text with pictures (`model` below a head): it cannot '
                             'be used')
        return model

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The modules whose configuration is the vision tower's and the language model's; all
        else of the network lies between them. Where that is nothing, the tower projects."""
        hf, model = self.skeleton, self._model
        names = {id(module): f'{name}.' for name, module in hf.named_modules()}
        vision = getattr(self.config, 'vision_config', None)
        towers = [module for module in model.modules()
                  if vision is not None and getattr(module, 'config', None) is vision]
        decoder = hf.get_decoder()
        if not towers or decoder is None or decoder is model:
            raise ValueError(f'{type(hf).__name__}: no part of it has the vision_config of its '
                             'configuration, or none is its language model alone; write its '
                             'family (docs/own_mllm.md)')
        tower, language = names[id(towers[0])], names[id(decoder)]
        between = [*_between(hf.model, 'model.', (tower, language))] or [
            f'{tower}{name}.' for name, _ in towers[0].named_children()
            if any(word in name for word in _PROJECTORS)]
        parts = dict(vision=(tower, ), projector=tuple(between),
                     llm=(language, names[id(hf.get_output_embeddings())]))
        return {part: prefixes for part, prefixes in parts.items() if prefixes}

    def save(self, folder: str) -> None:
        self.processor.save_pretrained(folder)


def load_processor(folder: str, config):
    """The processor of a folder. Without torchvision, which processors of videos need, it is the
    same class for pictures alone.

    Raises:
        ValueError: there is none, or it needs a package; one line.
    """
    try:
        if is_torchvision_available():
            processor = from_folder(AutoProcessor.from_pretrained, folder)
        else:
            cls = PROCESSOR_MAPPING.get(type(config), None)
            if cls is None:
                raise ValueError(f'transformers knows no processor of {config.model_type}; write '
                                 'its family (docs/own_mllm.md)')
            processor = from_folder(_of_pictures_alone(cls).from_pretrained, folder)
    except ImportError as error:
        raise _lacking(f'the processor in {folder}', error) from None
    if getattr(processor, 'tokenizer', None) is None or not hasattr(processor, 'image_processor'):
        raise ValueError(f'the processor in {folder} reads no pictures with text: fetch the '
                         'folder again')
    return processor


def _lacking(what: str, error: ImportError) -> ValueError:
    return ValueError(f'{what} needs a package that is not installed: '
                      f'{" ".join(str(error).split())[:300]}')


def _of_pictures_alone(cls: type) -> type:
    """A processor's class without its part for videos."""
    names = list(inspect.signature(cls.__init__).parameters)[1:]  # without `self`
    if 'video_processor' not in names:
        return cls

    class PictureProcessor(cls):
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != 'video_processor']

        @classmethod
        def from_args_and_dict(cls, args, processor_dict, **options):
            args = list(args)
            args.insert(names.index('video_processor'), None)  # which some insist on
            return super().from_args_and_dict(args, processor_dict, **options)

    PictureProcessor.__name__ = cls.__name__  # which a saved processor is found by
    return PictureProcessor


def _between(module: nn.Module, prefix: str, taken: tuple[str, ...]) -> Iterator[str]:
    """Prefixes of the weights of a module that stand in none of the modules that are taken."""
    yield from (f'{prefix}{name}' for name, _ in module.named_parameters(recurse=False))
    for name, child in module.named_children():
        place = f'{prefix}{name}.'
        if place not in taken and any(True for _ in child.parameters()):
            if any(other.startswith(place) for other in taken):
                yield from _between(child, place, taken)
            else:
                yield place


def _of_pictures(name: str) -> bool:
    name = name.lower()
    return any(word in name for word in ('image', 'img', 'video', 'vision', 'media', 'audio',
                                         'boi_', 'eoi_', 'row_'))
