# The control of reinforcement learning: as much SFT again, from the SFT checkpoint.
#   --cfg-options load_from=work_dirs/qwen25vl_sft_refcoco/iter_3125.pth
_base_ = '../qwen25vl_sft_refcoco.py'
optim_wrapper = dict(optimizer=dict(lr=1e-5))  # our choice
