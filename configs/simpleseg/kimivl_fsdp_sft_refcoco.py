# 16 B parameters: split over all GPUs (FSDP2).
_base_ = ['./kimivl_sft_refcoco.py', '../_base_/strategies/fsdp.py']
