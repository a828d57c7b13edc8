# Kimi-VL-A3B (MoonViT and Moonlight-16B-A3B), trained in full, routed experts and router included;
# the router's balance bias stays as released. The paper names Kimi-VL; pixels, the variant
# (Instruct) and what is trained are ours.
#
# The folder is made once from the released one:
#   python tools/model_converters/kimi_vl.py Kimi-VL-A3B-Instruct kimi_vl_a3b
model = dict(
    type='SimpleSeg',
    mllm=dict(
        type='KimiVL',
        pretrained='kimi_vl_a3b',
        dtype='bfloat16',
        max_pixels=1024 * 28 * 28,
        freeze=[],
        gradient_checkpointing=True))
