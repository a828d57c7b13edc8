# SFT of nano: it grounds already and learns to write polygons, in minutes on two cores.
_base_ = [
    '../_base_/models/nano.py', '../_base_/datasets/refshapes.py', '../_base_/evaluators/res.py',
    '../_base_/schedules/sft_nano.py', '../_base_/default_runtime.py',
    '../_base_/retention/refshapes.py'
]
# All objects of a picture in one conversation: its tokens are read once for 2.7 polygons.
train_dataloader = dict(batch_size=8, dataset=dict(query=dict(templates='single', turns=3)))
val_dataloader = dict(dataset=dict(indices=128))
default_hooks = dict(
    checkpoint=dict(interval=600, save_best='res/gIoU', rule='greater'),
    samples=dict(interval=600))
