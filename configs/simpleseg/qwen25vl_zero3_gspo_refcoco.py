# GSPO under DeepSpeed ZeRO-3: as under ZeRO-1, gradients and weights split too.
_base_ = './qwen25vl_zero1_gspo_refcoco.py'
load_from = 'work_dirs/qwen25vl_zero3_sft_refcoco'
strategy = dict(zero_optimization=dict(stage=3, overlap_comm=True, contiguous_gradients=True))
custom_hooks = [dict(type='WholeWeightsHook')]
