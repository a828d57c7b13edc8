_base_ = ['./qwen25vl_gspo_refcoco.py', '../_base_/strategies/fsdp.py']
load_from = 'work_dirs/qwen25vl_fsdp_sft_refcoco'
