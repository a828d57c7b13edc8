# GSPO of nano on references to one object, to several and to none, from the checkpoint of
# nano_sft_refshapes-several.py: nothing is the right answer to an absent target
# (reward 1), and any object the wrong one (0). Every number is our choice.
_base_ = './nano_gspo_refshapes.py'
data_root = 'data/refshapes_several'
load_from = 'work_dirs/nano_sft_refshapes-several/last'
model = dict(generation=dict(max_new_tokens=240))
train_dataloader = dict(dataset=dict(data_root=data_root))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=280))
test_dataloader = dict(dataset=dict(data_root=data_root))
train_cfg = dict(max_iters=80, val_interval=40, rollout=dict(max_new_tokens=200))
val_evaluator = [dict(type='GRESMetric'), dict(type='OutputHealthMetric')]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='gres/gIoU'))
