# RefCOCO-M: RefCOCO's val with masks drawn anew, from parquet (docs/data.md says where to get it).
#   python tools/test.py configs/simpleseg/qwen25vl_test_refcoco-m.py CHECKPOINT
_base_ = './qwen25vl_sft_refcoco.py'
test_dataloader = dict(
    dataset=dict(sources=[dict(name='refcoco-m', split='val')]))
