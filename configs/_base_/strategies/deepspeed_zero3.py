# Weights too. Whoever writes answers (validation, samples, rollouts) has all of them meanwhile.
_base_ = './deepspeed_zero2.py'
strategy = dict(zero_optimization=dict(stage=3))
custom_hooks = [dict(type='WholeWeightsHook')]
