_base_ = ['./kimivl_gspo_refcoco.py', '../_base_/strategies/fsdp.py']
load_from = 'work_dirs/kimivl_fsdp_sft_refcoco'
