"""Files of any origin: pictures, texts and paths read by one rule each, and files replaced whole.

Standard library, NumPy and Pillow only.
"""
from .paths import PictureFinder, spelled, spellings
from .pictures import (ImageError, ImageTooLarge, check_picture_size, is_url, list_images,
                       load_image, open_picture, orientation_of, upright_size)
from .texts import is_blank, load_json, one_line, read_lines, read_text, shown
from .weights import chat_template_of, check_folder, check_whole, from_folder
from .writing import make_folder, replace_bytes, replace_json, replace_text, replacing

__all__ = [
    'ImageError', 'ImageTooLarge', 'PictureFinder', 'chat_template_of', 'check_folder',
    'check_picture_size', 'check_whole', 'from_folder', 'is_blank', 'is_url', 'list_images',
    'load_image', 'load_json', 'make_folder', 'one_line', 'open_picture', 'orientation_of',
    'read_lines', 'read_text', 'replace_bytes', 'replace_json', 'replace_text', 'replacing',
    'shown', 'spelled', 'spellings', 'upright_size'
]
