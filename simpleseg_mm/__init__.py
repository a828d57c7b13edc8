"""simpleseg_mm: segmentation by an unmodified multimodal LLM that writes polygons as text."""
import logging

__version__ = '0.1.0'


def _of_use(record: logging.LogRecord) -> bool:
    """False of two lines that libraries write whenever they are imported, and that ask nothing of
    a user: of a kernel for 4-bit weights on CPUs, and of picture processors, which are PIL's here
    by choice."""
    return not str(record.msg).startswith('Failed to load CPU gemm_4bit_forward') and (
        'requires torchvision (not installed); falling back' not in str(record.msg))


for _name in ('bitsandbytes.backends.cpu.ops', 'transformers.utils.import_utils'):
    logging.getLogger(_name).addFilter(_of_use)
