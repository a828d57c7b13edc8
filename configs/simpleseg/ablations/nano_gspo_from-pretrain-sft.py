_base_ = '../nano_gspo_refshapes.py'
load_from = 'work_dirs/nano_sft_from-pretrain'
