# QLoRA for a card of 24 GB: the LLM's matrices in NF4 below the adapters.
_base_ = ['./qwen25vl_lora_sft_refcoco.py', '../_base_/models/nf4.py']
model = dict(mllm=dict(quantization={{_base_.nf4}}))
