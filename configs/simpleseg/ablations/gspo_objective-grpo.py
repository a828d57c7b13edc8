# GRPO: one ratio a token, its usual clip band.
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(objective=dict(level='token', clip_low=0.2, clip_high=0.2))
