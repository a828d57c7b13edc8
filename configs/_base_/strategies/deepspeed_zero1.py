# The optimizer's state split by DeepSpeed. As for ZeRO-2, the config that takes this in replaces
# the optimizer wrapper.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='DeepSpeedStrategy',
    bf16=dict(enabled=True),
    gradient_clipping=1.0,
    zero_optimization=dict(stage=1),
    exclude_frozen_parameters=True)
