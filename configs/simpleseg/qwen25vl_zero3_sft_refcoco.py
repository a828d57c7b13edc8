# DeepSpeed ZeRO-3.
_base_ = ['./qwen25vl_sft_refcoco.py', '../_base_/strategies/deepspeed_zero3.py']
optim_wrapper = dict(
    _delete_=True,
    type='DeepSpeedOptimWrapper',
    constructor='MuonConstructor',
    optimizer=dict(type='AdamW', lr=1e-5, weight_decay=0.1, betas=(0.9, 0.95)))
