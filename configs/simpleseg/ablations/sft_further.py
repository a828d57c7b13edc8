# The control of reinforcement learning: as much SFT again, from the SFT checkpoint.
_base_ = '../qwen25vl_sft_refcoco.py'
load_from = 'work_dirs/qwen25vl_sft_refcoco'
optim_wrapper = dict(optimizer=dict(lr=1e-5))  # our choice
