_base_ = [
    '../_base_/models/gemma3_4b.py', '../_base_/datasets/refcoco.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py', '../_base_/retention/questions.py'
]
