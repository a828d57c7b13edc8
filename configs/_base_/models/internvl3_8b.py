# InternVL3-8B; as the 1B, nor verified on released weights.
_base_ = './internvl3_1b.py'
model = dict(mllm=dict(pretrained='OpenGVLab/InternVL3-8B-hf'))
