# The released SimpleSeg-Kimi-VL, as released_qwen25vl_refcoco.py. Its folder is converted once:
#   python tools/model_converters/kimi_vl.py SimpleSeg-Kimi-VL simpleseg_kimi_vl
_base_ = './kimivl_sft_refcoco.py'
codec = dict(_delete_=True, preset='paper', grammar='fixed3')
model = dict(mllm=dict(pretrained='simpleseg_kimi_vl'))
train_dataloader = dict(dataset=dict(query=dict(codec=codec)))
val_dataloader = dict(dataset=dict(query=dict(codec=codec)))
test_dataloader = val_dataloader
