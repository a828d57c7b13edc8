# SimpleSeg-Kimi-VL (16B-A3B), SFT on RefCOCO (unc).
_base_ = [
    '../_base_/models/kimi_vl.py', '../_base_/datasets/refcoco.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py'
]
