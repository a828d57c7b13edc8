# SFT of nano on all objects of a scene with their names, from the last checkpoint of
# nano_sft_refshapes-instances.py, which knows lists.
_base_ = [
    '../_base_/models/nano.py', '../_base_/datasets/refshapes_objects.py',
    '../_base_/evaluators/instances.py', '../_base_/schedules/sft_nano.py',
    '../_base_/default_runtime.py'
]
load_from = 'work_dirs/nano_sft_refshapes-instances/last'
model = dict(generation=dict(max_new_tokens=400))
train_dataloader = dict(batch_size=8)
train_cfg = dict(max_iters=800, val_interval=800)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(
    checkpoint=dict(interval=400, save_best='inst/mIoU', rule='greater'),
    samples=dict(interval=-1))
