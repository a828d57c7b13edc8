# nano: a real Qwen2.5-VL of 2 M parameters that ships with the package. It grounds (points and
# boxes on RefShapes) and has not seen a polygon. Made by
# configs/simpleseg/nano_pretrain_refshapes.py
model = dict(
    type='SimpleSeg',
    mllm=dict(type='QwenVL', pretrained='simpleseg_mm://nano'),
    generation=dict(max_new_tokens=160),
    loss_chunk=4096)  # logits of its 1,024 tokens take little
