# The official preparation and decoding, with Douglas-Peucker at 0.002 of the contour's length.
_base_ = '../qwen25vl_sft_refcoco.py'
query = dict(codec=dict(preset='paper', grammar='decimal3', epsilon=0.002))
train_dataloader = dict(dataset=dict(query=query))
val_dataloader = dict(dataset=dict(query=query))
test_dataloader = val_dataloader
