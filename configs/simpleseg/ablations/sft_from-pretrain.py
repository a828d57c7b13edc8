# Pre-training and SFT.
_base_ = '../qwen25vl_sft_refcoco.py'
load_from = 'work_dirs/qwen25vl_pretrain_web'
