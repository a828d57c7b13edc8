"""Using a trained model: the inferencer, and pictures read safely."""
from ..files import ImageError, check_picture_size, list_images, load_image
from .inferencer import SimpleSegInferencer

__all__ = ['ImageError', 'SimpleSegInferencer', 'check_picture_size', 'list_images', 'load_image']
