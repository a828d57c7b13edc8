# 16 answers a prompt.
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(group_size=16)
