# The released SimpleSeg-Qwen2.5-VL.
_base_ = './qwen25vl_7b.py'
# The paper names no bounds of a picture's pixels; the official code takes those of the folder
# (preprocessor_config.json), and so does this. 256 to 1024 visual tokens are our recipes' choice.
model = dict(mllm=dict(pretrained='sthui/SimpleSeg-Qwen2.5-VL', min_pixels=None, max_pixels=None))
taught = dict(sets=[], prompts=[])  # not disclosed: no answer is doubted
