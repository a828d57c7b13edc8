# SFT of the small built-in model. Every number is our choice.
train_cfg = dict(
    type='SFTTrainLoop',
    global_batch_size=8,  # small: at this length, steps teach more than samples
    max_iters=1200,
    val_interval=1200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MuonConstructor',
    optimizer=dict(type='MuonAdamW', lr=2e-3, weight_decay=0.05, betas=(0.9, 0.95)),
    # the projector's 512 x 512 matrix would cost Muon as much as all others together
    paramwise_cfg=dict(adamw_keys=('lm_head', 'embed', 'merger')),
    clip_grad=dict(max_norm=1.0))

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=40)
]

auto_scale_lr = dict(enable=False, base_batch_size=8)
