# The paper's SFT: 800k samples of RefCOCO, RefCOCO+, RefCOCOg (umd) and RefCLEF.
_base_ = [
    '../_base_/models/qwen25vl_7b.py', '../_base_/datasets/refcoco_all.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py', '../_base_/retention/questions.py'
]
