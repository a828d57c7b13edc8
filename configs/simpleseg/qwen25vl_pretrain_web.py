# Pre-training on what the data engine wrote, before SFT (ablations/sft_from-pretrain.py). The
# paper does not disclose its schedule: that of SFT, ours.
_base_ = [
    '../_base_/models/qwen25vl_7b.py', '../_base_/datasets/web.py', '../_base_/evaluators/res.py',
    '../_base_/schedules/sft_paper.py', '../_base_/default_runtime.py'
]
