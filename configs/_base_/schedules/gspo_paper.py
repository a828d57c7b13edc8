# The paper's RL stage: GSPO, 400k prompts, rewards for mask IoU, centroid distance and format. It
# discloses neither weights nor hyper-parameters: the clip band and the 4 mini-batches a rollout
# batch are of GSPO's own paper, every other number here is our choice.
#
# Iterations count rollouts of `global_batch_size` prompts, of which each process has its share;
# `micro_batch_size` is for memory and changes no result.
train_cfg = dict(
    type='RLTrainLoop',
    global_batch_size=128,
    max_iters=3125,  # 400k prompts
    val_interval=125,
    group_size=8,
    mini_batches=4,
    micro_batch_size=8,
    min_std=0.01,
    objective=dict(level='sequence', clip_low=3e-4, clip_high=4e-4, beta=0.0),
    rollout=dict(type='InProcessRollout', batch_size=4, max_new_tokens=768, temperature=1.0),
    reward=dict(
        type='PolygonReward', weights=dict(mask_iou=1.0, centroid=0.2, format=0.2)))
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    constructor='MuonConstructor',
    optimizer=dict(type='MuonAdamW', lr=1e-6, weight_decay=0.0, betas=(0.9, 0.95)),
    clip_grad=dict(max_norm=1.0))

param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=10)]
