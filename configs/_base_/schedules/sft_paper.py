# The paper's SFT: Enhanced Muon, learning rate 5e-5 to 2e-6, cosine, warm-up ratio 0.03, global
# batch 256, one epoch of 800k samples = 3125 updates. What the paper does not state is ours.
#
# Iterations count updates of `global_batch_size` samples. The loop reaches that batch on any
# number of processes by accumulating gradients.
train_cfg = dict(type='SFTTrainLoop', global_batch_size=256, max_iters=3125, val_interval=500)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MuonConstructor',
    optimizer=dict(
        type='MuonAdamW',
        lr=5e-5,
        weight_decay=0.1,  # ours (Moonlight's)
        betas=(0.9, 0.95)),  # ours
    clip_grad=dict(max_norm=1.0))  # ours

# warm-up ratio 0.03
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=94),
    dict(
        type='CosineAnnealingLR',
        eta_min_ratio=0.04,  # 2e-6 of 5e-5
        by_epoch=False,
        begin=94)
]

# For `tools/train.py --auto-scale-lr`: change the learning rate instead of accumulating.
auto_scale_lr = dict(enable=False, base_batch_size=256)
