# SimpleSeg-Kimi-VL (16B-A3B), GSPO on RefCOCO (unc) from an SFT checkpoint:
#   python tools/train.py configs/simpleseg/kimivl_gspo_refcoco.py \
#       --cfg-options load_from=work_dirs/kimivl_sft_refcoco/iter_3125.pth
_base_ = [
    '../_base_/models/kimi_vl.py', '../_base_/datasets/refcoco.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/gspo_paper.py',
    '../_base_/rl_runtime.py'
]
train_dataloader = dict(
    dataset=dict(query=dict(tasks=dict(_delete_=True, text2mask=1.0), templates='single')))
