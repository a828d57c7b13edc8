# GSPO of QLoRA adapters, from the checkpoint of qwen25vl_qlora_sft_refcoco.py (same ranks):
#   --cfg-options load_from=work_dirs/qwen25vl_qlora_sft_refcoco/iter_3125.pth
_base_ = './qwen25vl_lora_gspo_refcoco.py'
model = dict(
    mllm=dict(
        quantization=dict(
            load_in_4bit=True,
            bnb_4bit_quant_type='nf4',
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype='bfloat16')))
