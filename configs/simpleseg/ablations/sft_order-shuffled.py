# Vertices shuffled (the default is OpenCV's order from the top-most, then left-most vertex).
_base_ = '../qwen25vl_sft_refcoco.py'
train_dataloader = dict(dataset=dict(query=dict(codec=dict(ring_order='shuffled'))))
