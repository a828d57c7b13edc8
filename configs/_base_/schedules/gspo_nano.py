# GSPO of the small built-in model, fully on-policy. Every number is our choice; what each of them
# did is in docs/reinforcement_learning.md.
train_cfg = dict(
    type='RLTrainLoop',
    global_batch_size=16,  # prompts a rollout; iterations count rollouts
    max_iters=240,
    val_interval=40,
    group_size=16,
    down_sample=8,
    mini_batches=1,
    micro_batch_size=32,
    min_std=0.01,
    objective=dict(level='sequence', clip_low=3e-4, clip_high=4e-4, beta=0.0),
    rollout=dict(type='InProcessRollout', max_new_tokens=100, temperature=1.0),
    reward=dict(
        type='PolygonReward', max_side=224, weights=dict(mask_iou=1.0, centroid=0.2, format=0.2)))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MuonConstructor',
    optimizer=dict(type='MuonAdamW', lr=2.5e-4, weight_decay=0.0, betas=(0.9, 0.95)),
    paramwise_cfg=dict(adamw_keys=('lm_head', 'embed', 'merger')),  # as in SFT
    clip_grad=dict(max_norm=1.0))

param_scheduler = [
    dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.1, by_epoch=False, begin=4)
]
