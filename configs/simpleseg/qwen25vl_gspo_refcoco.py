# SimpleSeg-Qwen2.5-VL-7B, GSPO on RefCOCO (unc) from the last checkpoint of SFT.
_base_ = [
    '../_base_/models/qwen25vl_7b.py', '../_base_/datasets/refcoco.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/gspo_paper.py',
    '../_base_/rl_runtime.py', '../_base_/retention/questions.py'
]
load_from = 'work_dirs/qwen25vl_sft_refcoco'
train_dataloader = dict(
    dataset=dict(query=dict(tasks=dict(_delete_=True, text2mask=1.0), templates='single')))
