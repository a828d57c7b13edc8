"""What a served model is to be asked, and how its answers are read."""
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from ..exported import NOTE, read_exported
from ..files import load_json
from ..files.packaged import locate
from ..polygon import PolygonCodec
from ..taught import Taught

#: of the released weights, which a model is taken for where nothing is said
RELEASED = 'fixed3/paper'
#: tokens of an answer, as of the in-process model
MAX_TOKENS = 1024


@dataclass(frozen=True)
class PixelBounds:
    """The size that Qwen-VL's image processors bring a picture to.

    Attributes:
        factor: pixels a side of a visual token.
        least, most: pixels of the whole.
    """
    factor: int = 28
    least: int = 56 * 56
    most: int = 16384 * 28 * 28

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """(h, w) of the picture as the model sees it, by the processor's own rule."""
        factor = self.factor
        h, w = (round(length / factor) * factor for length in (height, width))
        if h * w > self.most:
            scale = math.sqrt(height * width / self.most)
            h, w = (max(factor, math.floor(length / scale / factor) * factor)
                    for length in (height, width))
        elif h * w < self.least:
            scale = math.sqrt(self.least / (height * width))
            h, w = (math.ceil(length * scale / factor) * factor for length in (height, width))
        return h, w

    def resized(self, picture: np.ndarray) -> np.ndarray:
        """A picture (H, W, 3) uint8 as the processor resizes it: the server's own resizing then
        changes nothing."""
        height, width = picture.shape[:2]
        h, w = self.fit(height, width)
        if (h, w) == (height, width):
            return picture
        return np.asarray(Image.fromarray(picture).resize((w, h), Image.Resampling.BICUBIC))


@dataclass(frozen=True)
class AskedForm:
    """What a served model is to be asked, and how its answers are read.

    Attributes:
        codec: how outlines are written.
        taught: what the model was taught.
        system_prompt: None: that of the server's chat template.
        chat_template_kwargs: keywords of that template.
        max_tokens: of an answer.
        bounds: of pictures; None: they are sent as they are.
        folder: what was exported, where it is here; None: not known.
    """
    codec: PolygonCodec
    taught: Taught = Taught()
    system_prompt: str | None = None
    chat_template_kwargs: Mapping = field(default_factory=dict)
    max_tokens: int = MAX_TOKENS
    bounds: PixelBounds | None = None
    folder: Path | None = None

    @classmethod
    def of(cls, model: str | None = None, codec: str | None = None,
           max_tokens: int | None = None, max_pixels: int | None = None) -> 'AskedForm':
        """The form of an exported folder's model.

        Args:
            model: folder by ``to_huggingface.py``, or ``simpleseg_mm://NAME``; None: the released
                weights are meant, or one whose grammar ``codec`` names.
            codec: 'int1000/default' or another of :class:`PolygonCodec`; None: the folder's.
            max_tokens, max_pixels: instead of the folder's.

        Raises:
            FileNotFoundError, ValueError: there is no such folder, or it does not say how its
                model writes; no such codec; a number is none.
        """
        for name, value in dict(max_tokens=max_tokens, max_pixels=max_pixels).items():
            if value is not None and not value >= 1:
                raise ValueError(f'{name} is {value}; at least 1')
        if model is not None:
            form = cls._exported(Path(locate(str(model))), codec)
        elif codec is None:
            form = cls(_codec(RELEASED), bounds=PixelBounds())
        else:
            form = cls(_codec(codec))
        if max_pixels is not None:
            bounds = form.bounds and replace(
                form.bounds, most=min(form.bounds.most, max_pixels),
                least=min(form.bounds.least, max_pixels))
            form = replace(form, bounds=bounds or PixelBounds(1, 1, max_pixels))
        return form if max_tokens is None else replace(form, max_tokens=max_tokens)

    @classmethod
    def _exported(cls, folder: Path, codec: str | None) -> 'AskedForm':
        if not folder.is_dir():
            raise FileNotFoundError(f'no folder {folder}: with an endpoint the model is the '
                                    'folder that tools/model_converters/to_huggingface.py wrote '
                                    '(a copy of its JSON files does); leave it out for the '
                                    'released weights, or name the codec, as int1000/default')
        note = read_exported(folder)
        if note is None and codec is None:
            raise ValueError(f'{folder} has no {NOTE}, which says how its model writes: export '
                             'it again by tools/model_converters/to_huggingface.py, or name the '
                             'codec, such as int1000/default')
        note = note or dict(mllm={}, generation={}, query={})
        mllm = note['mllm']
        return cls(
            PolygonCodec(**note['query']['codec']) if codec is None else _codec(codec),
            Taught.from_dict(note.get('taught') or {}), mllm.get('system_prompt'),
            mllm.get('chat_template_kwargs') or {},
            note['generation'].get('max_new_tokens', MAX_TOKENS), _bounds(folder, mllm), folder)


def _codec(spec: str) -> PolygonCodec:
    if isinstance(spec, str) and '/' not in spec:
        spec = f'{spec}/default'
    try:
        return PolygonCodec.from_spec(spec)
    except ValueError as error:
        raise ValueError(f'codec: {error}') from None


def _bounds(folder: Path, mllm: Mapping) -> PixelBounds | None:
    """Those of a folder's processor where it is one of Qwen-VL's; else None."""
    settings = None
    for name in ('preprocessor_config.json', 'processor_config.json'):
        if settings is None and (folder / name).is_file():
            settings = load_json(folder / name)
            if name == 'processor_config.json' and isinstance(settings, dict):
                settings = settings.get('image_processor')
    if not isinstance(settings, dict) or not str(
            settings.get('image_processor_type')).startswith('Qwen2VL'):
        return None
    size = settings.get('size') if isinstance(settings.get('size'), dict) else {}
    usual = PixelBounds()

    def number(*given) -> int:
        found = next(value for value in given if value is not None)
        if type(found) is not int or found < 1:
            raise ValueError(f'{folder} has a broken preprocessor_config.json: {found!r} is no '
                             'number of pixels. Export the folder again')
        return found

    return PixelBounds(
        number(settings.get('patch_size'), 14) * number(settings.get('merge_size'), 2),
        number(mllm.get('min_pixels'), settings.get('min_pixels'), size.get('shortest_edge'),
               usual.least),
        number(mllm.get('max_pixels'), settings.get('max_pixels'), size.get('longest_edge'),
               usual.most))
