# GSPO under DeepSpeed ZeRO-1, from the checkpoint of SFT under ZeRO. AdamW in place of Muon; its
# rate is our choice.
_base_ = ['./qwen25vl_gspo_refcoco.py', '../_base_/strategies/deepspeed_zero1.py']
load_from = 'work_dirs/qwen25vl_zero2_sft_refcoco'
optim_wrapper = dict(
    _delete_=True,
    type='DeepSpeedOptimWrapper',
    constructor='MuonConstructor',
    optimizer=dict(type='AdamW', lr=1e-6, weight_decay=0.0, betas=(0.9, 0.95)))
