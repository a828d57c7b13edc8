# One update a rollout.
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(mini_batches=1)
