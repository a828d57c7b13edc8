# LoRA on the language model's matrices, the projector in full. Ranks and rate are our choice.
_base_ = './qwen25vl_sft_refcoco.py'
model = dict(
    mllm=dict(
        lora=dict(
            r=64,
            lora_alpha=128,
            lora_dropout=0.0,
            target_modules=r'.*language_model.*\.(q|k|v|o|gate|up|down)_proj'),
        train_with_lora=['projector']))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
