_base_ = './qwen25vl_qlora_sft_refcoco.py'
model = dict(mllm=dict(pretrained='Qwen/Qwen2.5-VL-3B-Instruct'))
