# GSPO of nano on like objects, from the checkpoint of nano_sft_refshapes-instances.py. The reward
# is the matched IoU over the larger count: a miss costs as much as an invention. All is ours.
_base_ = [
    '../_base_/models/nano.py', '../_base_/datasets/refshapes_instances.py',
    '../_base_/evaluators/instances.py', '../_base_/schedules/gspo_nano.py',
    '../_base_/rl_runtime.py'
]
load_from = 'work_dirs/nano_sft_refshapes-instances/last'
model = dict(generation=dict(max_new_tokens=480))
train_dataloader = dict(dataset=dict(query=dict(tasks=dict(text2masks=1.0))))
train_cfg = dict(
    max_iters=40,
    val_interval=20,
    rollout=dict(max_new_tokens=420),
    reward=dict(weights=dict(_delete_=True, instance_iou=1.0, format=0.2)))
default_hooks = dict(checkpoint=dict(save_best='inst/mIoU'))
