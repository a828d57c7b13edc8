# GSPO of LoRA adapters, from the checkpoint of internvl3_8b_lora_sft_refcoco.py (same ranks). The
# rate is our choice.
_base_ = [
    '../_base_/models/internvl3_8b.py', '../_base_/models/lora_llm.py',
    '../_base_/datasets/refcoco.py', '../_base_/evaluators/res.py',
    '../_base_/schedules/gspo_paper.py', '../_base_/rl_runtime.py',
    '../_base_/retention/questions.py'
]
load_from = 'work_dirs/internvl3_8b_lora_sft_refcoco'
model = dict(mllm=dict(lora={{_base_.lora}}, train_with_lora=['projector']))
optim_wrapper = dict(optimizer=dict(lr=1e-5))
train_dataloader = dict(
    dataset=dict(query=dict(tasks=dict(_delete_=True, text2mask=1.0), templates='single')))
