# The same training with weights, gradients and optimizer state split over all GPUs (FSDP2).
_base_ = ['./qwen25vl_sft_refcoco.py', '../_base_/strategies/fsdp.py']
