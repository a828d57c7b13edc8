# Learn from the 4 of 8 answers whose rewards differ most (PODS).
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(down_sample=4)
