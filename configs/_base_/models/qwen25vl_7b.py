# Qwen2.5-VL-7B, trained in full. The paper names the backbone; pixels and what is trained are
# ours.
model = dict(
    type='SimpleSeg',
    mllm=dict(
        type='QwenVL',
        pretrained='Qwen/Qwen2.5-VL-7B-Instruct',
        dtype='bfloat16',
        min_pixels=256 * 28 * 28,
        max_pixels=1024 * 28 * 28,
        freeze=[],
        gradient_checkpointing=True))
