# Weights too. Answers have different lengths, which split weights cannot serve: a config with this
# trains without validation (qwen25vl_zero3_sft_refcoco.py).
_base_ = './deepspeed_zero2.py'
strategy = dict(zero_optimization=dict(stage=3))
