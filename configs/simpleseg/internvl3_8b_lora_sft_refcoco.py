# LoRA on the language model's matrices, the projector in full. Ranks and rate are our choice.
_base_ = ['./internvl3_8b_sft_refcoco.py', '../_base_/models/lora_llm.py']
model = dict(mllm=dict(lora={{_base_.lora}}, train_with_lora=['projector']))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
