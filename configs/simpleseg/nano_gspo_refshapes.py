# GSPO of nano from the best checkpoint of SFT.
_base_ = [
    '../_base_/models/nano.py', '../_base_/datasets/refshapes.py', '../_base_/evaluators/res.py',
    '../_base_/schedules/gspo_nano.py', '../_base_/rl_runtime.py',
    '../_base_/retention/refshapes.py'
]
load_from = 'work_dirs/nano_sft_refshapes'
train_dataloader = dict(dataset=dict(query=dict(templates='single')))
val_dataloader = dict(dataset=dict(indices=256))
