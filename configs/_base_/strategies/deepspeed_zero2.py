# Gradients and optimizer state split by DeepSpeed. Its flat partitions leave Muon no matrices: the
# config that takes this in also replaces the optimizer wrapper (qwen25vl_zero2_sft_refcoco.py).
runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    bf16=dict(enabled=True),
    gradient_clipping=1.0,
    zero_optimization=dict(stage=2, overlap_comm=True, contiguous_gradients=True),
    exclude_frozen_parameters=True)
