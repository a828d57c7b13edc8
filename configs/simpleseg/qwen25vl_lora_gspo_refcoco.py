# GSPO of LoRA adapters, from the checkpoint of qwen25vl_lora_sft_refcoco.py (same ranks). The rate
# is our choice.
_base_ = ['./qwen25vl_gspo_refcoco.py', '../_base_/models/lora_llm.py']
load_from = 'work_dirs/qwen25vl_lora_sft_refcoco'
model = dict(mllm=dict(lora={{_base_.lora}}, train_with_lora=['projector']))
optim_wrapper = dict(optimizer=dict(lr=1e-5))
