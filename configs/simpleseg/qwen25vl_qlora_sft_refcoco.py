# QLoRA for a card of 24 GB: the LLM's matrices in NF4 below the adapters.
_base_ = './qwen25vl_lora_sft_refcoco.py'
model = dict(
    mllm=dict(
        quantization=dict(
            load_in_4bit=True,
            bnb_4bit_quant_type='nf4',
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype='bfloat16')))
