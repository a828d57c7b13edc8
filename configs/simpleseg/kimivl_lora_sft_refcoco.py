# LoRA on the language model's attention, dense and shared MLPs and on the router, the projector in
# full; the routed experts stay as they are. Ranks and rate are our choice. The routed experts as
# well (886 M adapter weights at this rank): target_parameters=['mlp.gate.weight',
# 'mlp.experts.gate_up_proj', 'mlp.experts.down_proj'].
_base_ = './kimivl_sft_refcoco.py'
model = dict(
    mllm=dict(
        lora=dict(
            r=64,
            lora_alpha=128,
            lora_dropout=0.0,
            target_modules=r'.*language_model.*\.(q|kv_b|o|gate|up|down)_proj|.*\.kv_a_proj_with_mqa',
            target_parameters=['mlp.gate.weight']),
        train_with_lora=['projector']))
optim_wrapper = dict(optimizer=dict(lr=1e-4))
