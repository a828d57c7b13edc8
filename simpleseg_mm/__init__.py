"""simpleseg_mm: segmentation by an unmodified multimodal LLM that writes polygons as text."""
__version__ = '0.1.0'
