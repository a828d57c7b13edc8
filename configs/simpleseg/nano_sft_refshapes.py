# SFT of nano: it grounds already and learns to write polygons, in minutes on two cores.
_base_ = [
    '../_base_/models/nano.py', '../_base_/datasets/refshapes.py', '../_base_/evaluators/res.py',
    '../_base_/schedules/sft_nano.py', '../_base_/default_runtime.py'
]
train_dataloader = dict(batch_size=16, dataset=dict(query=dict(templates='single')))
val_dataloader = dict(dataset=dict(indices=128))
default_hooks = dict(
    checkpoint=dict(interval=700, save_best='res/gIoU', rule='greater'),
    samples=dict(interval=700))
