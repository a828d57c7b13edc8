"""What a family of multimodal LLMs is: names of tokens and parts, and how pictures are read."""
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ...files import load_json, replace_json
from ..chat import file_of, read_template


@dataclass(frozen=True)
class Head:
    """The beginning of a conversation, up to the first prompt, which holds the picture.

    Attributes:
        text: as the chat template writes it, with one placeholder for the picture.
        before, after: ids before and behind the placeholder.
        placeholder: its id.
    """
    text: str
    before: list[int]
    placeholder: int
    after: list[int]

    def of(self, count: int) -> list[int]:
        """The ids where the picture takes ``count`` tokens."""
        return self.before + [self.placeholder] * count + self.after


class Family:
    """A family of multimodal LLMs; it holds no weights.

    A subclass names tokens and parts, and says how pictures become tensors
    (:meth:`read_pictures`).

    Args:
        folder: of the tokenizer and the image processor.
        config: the network's, of transformers.
        tokenizer: of the folder.
        min_pixels, max_pixels: bounds of the resized picture's area; ``None``: the folder's.
    """
    #: ``model_type`` of the configs that it reads; empty: any
    model_types: tuple[str, ...] = ()
    #: name of the part -> prefixes of its parameters below the transformers model
    parts: dict[str, tuple[str, ...]] = {}
    #: placeholder that stands for one visual token in the text
    image_token: str
    #: what stands in the user's turn for one picture, with one ``image_token``, where a chat
    #: template takes plain text alone
    image_markup: str
    #: the network's input (B, T) that is 1 where a picture's token stands; ``None``: it has none
    token_types: str | None = None
    #: measures of ``acceleration`` that suit the family, beside those that suit any network
    acceleration: tuple[str, ...] = ()
    #: ``save_original_format`` of transformers' ``save_pretrained``
    saves_original_format = True

    def __init__(self, folder: str, config, tokenizer, min_pixels: int | None = None,
                 max_pixels: int | None = None) -> None:
        self.folder, self.config, self.tokenizer = folder, config, tokenizer
        self.image_processor = self.build_image_processor(folder, min_pixels, max_pixels)

    def build_image_processor(self, folder: str, min_pixels: int | None, max_pixels: int | None):
        """The image processor of the folder, without torchvision where that is absent."""
        raise NotImplementedError

    def read_pictures(self, images: Sequence[Tensor]) -> tuple[dict[str, Tensor], list[int]]:
        """uint8 (3, H, W) pictures -> the network's inputs, number of tokens a picture."""
        raise NotImplementedError

    def resized(self, image: Tensor) -> Tensor:
        """A uint8 (3, H, W) picture as the image processor resizes it, before it normalises; the
        picture itself where a family cannot tell. Another engine's processor leaves it so."""
        return image

    def read(self, images: Sequence[Tensor], head: Head
             ) -> tuple[dict[str, Tensor], list[list[int]]]:
        """Pictures -> the network's inputs, and for each the ids of a conversation's beginning."""
        inputs, counts = self.read_pictures(images)
        return inputs, [head.of(count) for count in counts]

    @property
    def image_token_id(self) -> int:
        return self.tokenizer.convert_tokens_to_ids(self.image_token)

    @property
    def banned_tokens(self) -> list[int]:
        """Ids that break the network when written: placeholders of pictures and videos."""
        raise NotImplementedError

    def render(self, messages: list[dict], **options) -> str:
        """A conversation by the chat template of the folder."""
        return self.tokenizer.apply_chat_template(messages, tokenize=False, **options)

    def check_template(self, folder: str) -> None:
        """Finds the chat template of the folder; ValueError where there is none."""
        read_template(self.tokenizer, folder)

    def save(self, folder: str) -> None:
        """Writes what is read beside the weights: tokenizer, image processor, and what the
        folder's own processor says of itself."""
        self.tokenizer.save_pretrained(folder)
        self.image_processor.save_pretrained(folder)
        file = file_of(self.folder, 'processor_config.json')
        if file is not None:
            replace_json(Path(folder, file.name), {  # without its parts, which have files
                key: value for key, value in load_json(file).items()
                if not isinstance(value, dict)}, indent=2)

    def official(self, text: str, image: Tensor) -> dict[str, list[int]] | None:
        """What the folder's own processor makes of a text with one placeholder: ``input_ids``,
        and token types where it gives them; ``None``: the family expands the placeholder
        itself."""
        return None
