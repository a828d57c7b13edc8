_base_ = ['./kimivl_gspo_refcoco.py', '../_base_/strategies/fsdp.py']
