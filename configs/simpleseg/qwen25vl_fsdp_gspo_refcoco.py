_base_ = ['./qwen25vl_gspo_refcoco.py', '../_base_/strategies/fsdp.py']
