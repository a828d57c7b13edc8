# GSPO of LoRA adapters, from the checkpoint of qwen25vl_lora_sft_refcoco.py (same ranks):
#   --cfg-options load_from=work_dirs/qwen25vl_lora_sft_refcoco/iter_3125.pth
# Rank and rate are our choice. Dropout must stay 0: the policy has to agree with itself.
_base_ = './qwen25vl_gspo_refcoco.py'
model = dict(
    mllm=dict(
        lora=dict(
            r=64,
            lora_alpha=128,
            lora_dropout=0.0,
            target_modules=r'.*language_model.*\.(q|k|v|o|gate|up|down)_proj'),
        train_with_lora=['projector']))
optim_wrapper = dict(optimizer=dict(lr=1e-5))
