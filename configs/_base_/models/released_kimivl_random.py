# Its shape.
_base_ = './kimi_vl_random.py'
