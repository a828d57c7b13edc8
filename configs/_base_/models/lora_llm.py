# LoRA on the language model's matrices, for `model.mllm.lora`. Rank and alpha are our choice;
# dropout stays 0, since a policy in reinforcement learning has to agree with itself.
lora = dict(
    r=64,
    lora_alpha=128,
    lora_dropout=0.0,
    target_modules=r'.*language_model.*\.(q|k|v|o|gate|up|down)_proj')
