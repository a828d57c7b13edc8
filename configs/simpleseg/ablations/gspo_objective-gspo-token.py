# GSPO-token.
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(objective=dict(level='sequence_token'))
