# Its shape.
_base_ = './kimi_vl_random.py'
taught = dict(sets=[], prompts=[])  # not disclosed: no answer is doubted
