# Its shape.
_base_ = './qwen25vl_7b_random.py'
