# The few real references of RefCOCO-mini, trained and tested on: do photos, native files, sizes
# and polygons agree? Iterations and rate are our choice.
_base_ = [
    '../_base_/models/qwen25vl_7b.py', '../_base_/datasets/refcoco_mini.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py'
]
global_batch_size = 16
train_cfg = dict(max_iters=300, val_interval=300)
