# The released SimpleSeg-Kimi-VL, converted by tools/model_converters/kimi_vl.py.
_base_ = './kimi_vl.py'
model = dict(mllm=dict(pretrained='simpleseg_kimi_vl'))
taught = dict(sets=[], prompts=[])  # not disclosed: no answer is doubted
