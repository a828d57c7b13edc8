"""Masks from boxes by SAM, SAM 2 or SAM 3 (its tracker) of transformers.

The process that runs the stage loads torch and transformers; others do without them.
"""
from collections.abc import Sequence

import numpy as np
from PIL import Image

from simpleseg_mm.files import from_folder
from simpleseg_mm.polygon import mask_to_rle
from simpleseg_mm.registry import STAGES

from .grounding import pick_device
from .sample import Sample
from .stage import Stage

# How each family sees an image, from its image processor (which needs torchvision for two of
# them): whether the shape is kept, mean and deviation of a channel.
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_FAMILIES = {'sam': (True, *_IMAGENET), 'sam2': (False, *_IMAGENET),
             'sam2_video': (False, *_IMAGENET), 'sam3_tracker': (False, [0.5] * 3, [0.5] * 3),
             'sam3_video': (False, [0.5] * 3, [0.5] * 3)}


@STAGES.register_module()
class SamSegment(Stage):
    """Gives each object the mask that its box prompts.

    The image is encoded once; its boxes go through the mask decoder in groups.

    Args:
        pretrained: local folder or hub id, such as 'facebook/sam-vit-huge',
            'facebook/sam2.1-hiera-large' or 'facebook/sam3'.
        max_boxes: boxes in one pass of the mask decoder.
        dtype, device: see :class:`Grounder`.
        **kwargs: see :class:`Stage`.
    """

    def __init__(self, pretrained: str, max_boxes: int = 32, dtype: str = 'float32',
                 device: str | None = None, batch_size: int = 4, **kwargs) -> None:
        super().__init__(batch_size=batch_size, **kwargs)
        import torch
        from transformers import AutoConfig, AutoModelForMaskGeneration
        family = from_folder(AutoConfig.from_pretrained, pretrained).model_type
        if family not in _FAMILIES:
            raise ValueError(f'{pretrained} is a {family}; a segmenter here is one of '
                             f'{sorted(_FAMILIES)}')
        self.keeps_shape, self.mean, self.std = _FAMILIES[family]
        self.model = from_folder(
            AutoModelForMaskGeneration.from_pretrained, pretrained,
            dtype=getattr(torch, dtype)).eval().to(pick_device(device))
        side = self.model.config.prompt_encoder_config.image_size
        self.side = side if isinstance(side, int) else side[0]
        self.max_boxes = max_boxes

    def process(self, samples: Sequence[Sample]) -> None:
        import torch
        samples = [sample for sample in samples if sample.objects]
        if not samples:
            return
        shapes = [self._shape(sample) for sample in samples]
        pixels = torch.stack([self._pixels(sample.image, shape)
                              for sample, shape in zip(samples, shapes)])
        with torch.inference_mode():
            features = self.model.get_image_embeddings(
                pixels.to(self.model.device, self.model.dtype))
            for number, (sample, shape) in enumerate(zip(samples, shapes)):
                one = slice(number, number + 1)
                own = features[one] if torch.is_tensor(features) else [f[one] for f in features]
                for start in range(0, len(sample.objects), self.max_boxes):
                    self._segment(sample, sample.objects[start:start + self.max_boxes], own, shape)

    def _shape(self, sample: Sample) -> tuple[int, int]:
        """(h, w) of the image as the network sees it, without padding."""
        if not self.keeps_shape:
            return self.side, self.side
        scale = self.side / max(sample.height, sample.width)
        return int(sample.height * scale + 0.5), int(sample.width * scale + 0.5)

    def _pixels(self, image: np.ndarray, shape: tuple[int, int]):
        """``(3, side, side)``: resized, normalised, padded with zeros."""
        import torch
        small = np.asarray(Image.fromarray(image).resize(shape[::-1], Image.BILINEAR), np.float32)
        out = torch.zeros(3, self.side, self.side)
        out[:, :shape[0], :shape[1]] = torch.from_numpy(
            ((small / 255 - self.mean) / self.std).astype(np.float32)).permute(2, 0, 1)
        return out

    def _segment(self, sample: Sample, objects: list[dict], features, shape) -> None:
        import torch
        scale = np.array([shape[1] / sample.width, shape[0] / sample.height] * 2)
        boxes = torch.tensor(np.array([o['box'] for o in objects]) * scale)[None]
        output = self.model(image_embeddings=features, multimask_output=False,
                            input_boxes=boxes.to(self.model.device, self.model.dtype))
        logits = output.pred_masks[0].float()
        scores = output.iou_scores[0, :, 0].float().tolist()
        upscale = torch.nn.functional.interpolate
        for found, logit, score in zip(objects, logits, scores, strict=True):
            full = upscale(logit[None], (self.side, self.side), mode='bilinear')
            full = upscale(full[..., :shape[0], :shape[1]], (sample.height, sample.width),
                           mode='bilinear')
            found['mask'] = mask_to_rle((full[0, 0] > 0).cpu().numpy())
            found['mask_score'] = round(score, 4)
