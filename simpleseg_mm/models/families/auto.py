"""Any ``AutoModelForImageTextToText``, by its own ``AutoProcessor``."""
import inspect
from collections.abc import Sequence
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING
from transformers.utils import is_torchvision_available

from ...files import from_folder
from ...registry import FAMILIES
from .base import Family, Head

#: what a processor gives for the text
_OF_TEXT = ('input_ids', 'attention_mask', 'token_type_ids', 'mm_token_type_ids')


@FAMILIES.register_module()
class AutoVLM(Family):
    """A family that is known by its folder alone: the processor writes the placeholders and makes
    the tensors, and parts are found by what they are. Arguments as in :class:`Family`.

    Raises:
        ValueError: ``min_pixels`` or ``max_pixels`` are given, or the folder has no processor or
            no chat template; one line.
    """
    acceleration = ('packed_rows', )

    def __init__(self, folder: str, config, tokenizer, min_pixels: int | None = None,
                 max_pixels: int | None = None) -> None:
        self.processor = load_processor(folder, config)
        super().__init__(folder, config, self.processor.tokenizer, min_pixels, max_pixels)
        self.image_token = self.image_markup = self.processor.image_token
        names = inspect.signature(self.skeleton.model.forward).parameters
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
                             'chat_template.jinja to that folder')

    def render(self, messages: list[dict], **options) -> str:
        return self.tokenizer.apply_chat_template(
            messages, chat_template=self.processor.chat_template, tokenize=False, **options)

    def read(self, images: Sequence[Tensor], head: Head
             ) -> tuple[dict[str, Tensor], list[list[int]]]:
        found = self._process([head.text] * len(images), images)
        ids = [row[mask.bool()].tolist()
               for row, mask in zip(found['input_ids'], found['attention_mask'])]
        return {key: value for key, value in found.items()
                if isinstance(value, Tensor) and key not in _OF_TEXT
                and key not in getattr(self.processor, 'unused_input_names', ())}, ids

    def official_ids(self, text: str, image: Tensor) -> list[int]:
        return self._process([text], [image])['input_ids'][0].tolist()

    def _process(self, texts: list[str], images: Sequence[Tensor]):
        pictures = [[Image.fromarray(image.cpu().permute(1, 2, 0).numpy())] for image in images]
        return self.processor(text=texts, images=pictures, padding=True, return_tensors='pt',
                              add_special_tokens=False)  # the template writes them

    @property
    def image_token_id(self) -> int:
        """Of the token whose states are a picture's features."""
        found = getattr(self.config, 'image_token_id', None)
        return self.config.image_token_index if found is None else found

    @cached_property
    def banned_tokens(self) -> list[int]:
        """Every id that the processor, the tokenizer or the config names for pictures or videos,
        and special tokens that say so."""
        found = {self.image_token_id, *(getattr(self.processor, 'image_token_ids', None) or ())}
        for thing in (self.processor, self.tokenizer, self.config):
            for name, value in vars(thing).items():
                if name.endswith(('token_id', 'token_index')) and _of_pictures(name):
                    found.add(value)
        found.update(i for i, token in self.tokenizer.added_tokens_decoder.items()
                     if token.special and _of_pictures(token.content))
        return sorted(i for i in found if type(i) is int and i >= 0)

    @cached_property
    def skeleton(self):
        """The network without weights."""
        with torch.device('meta'):
            return AutoModelForImageTextToText.from_config(self.config, trust_remote_code=False)

    @cached_property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """The modules whose configuration is the vision tower's and the language model's; all
        else of the network lies between them."""
        hf, found = self.skeleton, {}
        names = {id(module): f'{name}.' for name, module in hf.named_modules()}
        vision = getattr(self.config, 'vision_config', None)
        towers = [module for module in hf.model.modules()
                  if vision is not None and getattr(module, 'config', None) is vision]
        if not towers:
            raise ValueError(f'{type(hf).__name__}: no part of it has the vision_config of its '
                             'configuration; write its family (docs/own_mllm.md)')
        found = dict(vision=(names[id(towers[0])], ), projector=('model.', ),
                     llm=(names[id(hf.get_decoder())], names[id(hf.get_output_embeddings())]))
        return found

    def save(self, folder: str) -> None:
        self.processor.save_pretrained(folder)


def load_processor(folder: str, config):
    """The processor of a folder. Without torchvision, which processors of videos need, it is the
    same class for pictures alone.

    Raises:
        ValueError: there is none; ImportError: it needs a package.
    """
    if is_torchvision_available():
        processor = from_folder(AutoProcessor.from_pretrained, folder)
    else:
        cls = PROCESSOR_MAPPING.get(type(config), None)
        if cls is None:
            raise ValueError(f'transformers knows no processor of {config.model_type}; write its '
                             'family (docs/own_mllm.md)')
        processor = from_folder(_of_pictures_alone(cls).from_pretrained, folder)
    if getattr(processor, 'tokenizer', None) is None or not hasattr(processor, 'image_processor'):
        raise ValueError(f'the processor in {folder} reads no pictures with text: fetch the '
                         'folder again')
    return processor


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


def _of_pictures(name: str) -> bool:
    name = name.lower()
    return any(word in name for word in ('image', 'img', 'video', 'vision', 'boi_', 'eoi_',
                                         'row_'))
