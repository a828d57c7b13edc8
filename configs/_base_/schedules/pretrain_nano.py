# Training of the small built-in model from random weights. Every number is our choice.
train_cfg = dict(type='SFTTrainLoop', global_batch_size=32, max_iters=5500, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MuonConstructor',
    optimizer=dict(type='MuonAdamW', lr=4e-3, weight_decay=0.05, betas=(0.9, 0.95)),
    clip_grad=dict(max_norm=1.0))

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=200)
]

auto_scale_lr = dict(enable=False, base_batch_size=32)
