# With a penalty of length, which the paper found to hurt; its weight is our choice.
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(reward=dict(weights=dict(length=0.2)))
