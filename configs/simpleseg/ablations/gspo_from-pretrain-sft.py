# Pre-training, SFT and RL.
_base_ = '../qwen25vl_gspo_refcoco.py'
load_from = 'work_dirs/sft_from-pretrain'
