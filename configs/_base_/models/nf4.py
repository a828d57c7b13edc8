# QLoRA's 4 bits, for `model.mllm.quantization`.
nf4 = dict(
    load_in_4bit=True,
    bnb_4bit_quant_type='nf4',
    bnb_4bit_use_double_quant=True,
    bnb_4bit_compute_dtype='bfloat16')
