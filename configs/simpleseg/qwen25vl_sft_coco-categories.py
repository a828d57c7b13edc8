# SFT on COCO's categories: several objects in one answer, and categories that are not there.
_base_ = [
    '../_base_/models/qwen25vl_7b.py', '../_base_/datasets/coco_categories.py',
    '../_base_/evaluators/gres.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py', '../_base_/retention/questions.py'
]
