# Qwen3-VL has 16-pixel patches: a visual token covers 32 x 32 pixels.
_base_ = './qwen25vl_7b.py'
model = dict(
    mllm=dict(
        pretrained='Qwen/Qwen3-VL-4B-Instruct',
        min_pixels=256 * 32 * 32,
        max_pixels=1024 * 32 * 32))
