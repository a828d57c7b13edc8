# The released SimpleSeg-Kimi-VL, as released_qwen25vl_refcoco.py. Its folder is converted once:
#   python tools/model_converters/kimi_vl.py SimpleSeg-Kimi-VL simpleseg_kimi_vl
_base_ = [
    '../_base_/models/released_kimivl.py', '../_base_/datasets/refcoco_released.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py'
]
