# SimpleSeg-Kimi-VL (16B-A3B), GSPO on RefCOCO (unc) from the last checkpoint of SFT.
_base_ = [
    '../_base_/models/kimi_vl.py', '../_base_/datasets/refcoco.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/gspo_paper.py',
    '../_base_/rl_runtime.py'
]
load_from = 'work_dirs/kimivl_sft_refcoco'
train_dataloader = dict(
    dataset=dict(query=dict(tasks=dict(_delete_=True, text2mask=1.0), templates='single')))
