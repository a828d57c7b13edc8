# Its shape.
_base_ = './qwen25vl_7b_random.py'
taught = dict(sets=[], prompts=[])  # not disclosed: no answer is doubted
