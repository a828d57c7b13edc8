# The released SimpleSeg-Kimi-VL, converted by tools/model_converters/kimi_vl.py.
_base_ = './kimi_vl.py'
# The paper names no bounds of a picture's pixels; the official code takes those of the folder
# (preprocessor_config.json), and so does this. 256 to 1024 visual tokens are our recipes' choice.
model = dict(mllm=dict(pretrained='simpleseg_kimi_vl', min_pixels=None, max_pixels=None))
taught = dict(sets=[], prompts=[])  # not disclosed: no answer is doubted
