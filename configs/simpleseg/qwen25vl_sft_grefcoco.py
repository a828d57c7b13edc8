# SFT on gRefCOCO: references to one object, to several and to none.
_base_ = [
    '../_base_/models/qwen25vl_7b.py', '../_base_/datasets/grefcoco.py',
    '../_base_/evaluators/gres.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py', '../_base_/retention/questions.py'
]
