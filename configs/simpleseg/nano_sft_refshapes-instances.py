# SFT of nano on like objects, one to six and none, each outlined by itself.
# Second of two stages, from the last checkpoint of nano_pretrain_refshapes-instances.py, whose
# boxes go on beside the outlines: which objects are meant, and how many, is most of a box.
_base_ = [
    '../_base_/models/nano.py', '../_base_/datasets/refshapes_instances.py',
    '../_base_/evaluators/instances.py', '../_base_/schedules/sft_nano.py',
    '../_base_/default_runtime.py'
]
load_from = 'work_dirs/nano_pretrain_refshapes-instances/last'
model = dict(generation=dict(max_new_tokens=480))
train_dataloader = dict(
    batch_size=8,
    dataset=dict(query=dict(turns=6, tasks=dict(text2masks=2.0, text2boxes=1.0))))
train_cfg = dict(max_iters=4500, val_interval=1500)
default_hooks = dict(
    checkpoint=dict(interval=500, save_best='inst/mIoU', rule='greater'),
    samples=dict(interval=-1))
