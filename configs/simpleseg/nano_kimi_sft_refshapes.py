# nano's SFT on a nano-sized Kimi-VL with random weights: the same data, codec, loop, schedule and
# metrics; only the model differs. It has no grounding to start from and learns a little.
_base_ = './nano_sft_refshapes.py'
