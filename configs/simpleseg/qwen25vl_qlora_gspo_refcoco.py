# GSPO of QLoRA adapters, from the checkpoint of qwen25vl_qlora_sft_refcoco.py (same ranks).
_base_ = ['./qwen25vl_lora_gspo_refcoco.py', '../_base_/models/nf4.py']
load_from = 'work_dirs/qwen25vl_qlora_sft_refcoco'
model = dict(mllm=dict(quantization={{_base_.nf4}}))
