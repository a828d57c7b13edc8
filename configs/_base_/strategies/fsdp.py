# Weights, gradients and optimizer state split over all processes (FSDP2). A config takes it in by
# its _base_ list, after the runtime.
runner_type = 'FlexibleRunner'
strategy = dict(type='simpleseg_mm.FullyShardStrategy')
custom_hooks = [dict(type='WholeWeightsHook')]
