# GSPO of the nano-sized Kimi-VL from the checkpoint of its SFT.
_base_ = [
    '../_base_/models/nano_kimi_random.py', '../_base_/datasets/refshapes.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/gspo_nano.py', '../_base_/rl_runtime.py'
]
load_from = 'work_dirs/nano_kimi_sft_refshapes'
data_root = 'data/refshapes_easy'
train_dataloader = dict(dataset=dict(data_root=data_root, query=dict(templates='single')))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=256))
test_dataloader = dict(dataset=dict(data_root=data_root))
optim_wrapper = dict(paramwise_cfg=dict(adamw_keys=('lm_head', 'embed', 'mm_projector')))
