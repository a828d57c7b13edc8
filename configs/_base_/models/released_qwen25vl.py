# The released SimpleSeg-Qwen2.5-VL.
_base_ = './qwen25vl_7b.py'
model = dict(mllm=dict(pretrained='sthui/SimpleSeg-Qwen2.5-VL'))
taught = dict(sets=[], prompts=[])  # not disclosed: no answer is doubted
