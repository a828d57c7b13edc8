# The few real references of RefCOCO-mini, trained and tested on: do photos, native files, sizes
# and polygons agree? Iterations and rates are our choice.
_base_ = [
    '../_base_/models/qwen25vl_7b.py', '../_base_/datasets/refcoco_mini.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=16)
train_cfg = dict(global_batch_size=16, max_iters=300, val_interval=300)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.04, by_epoch=False, begin=20)
]
