# The released SimpleSeg-Kimi-VL, as released_qwen25vl_refcoco.py. Its folder is converted once:
#   python tools/model_converters/kimi_vl.py SimpleSeg-Kimi-VL simpleseg_kimi_vl
_base_ = [
    '../_base_/models/released_kimivl.py', '../_base_/datasets/refcoco.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/sft_paper.py',
    '../_base_/default_runtime.py'
]
codec = dict(_delete_=True, preset='paper', grammar='fixed3')
train_dataloader = dict(dataset=dict(query=dict(codec=codec)))
val_dataloader = dict(dataset=dict(query=dict(codec=codec)))
test_dataloader = val_dataloader
