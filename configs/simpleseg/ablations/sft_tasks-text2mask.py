# Polygons from sentences only.
_base_ = '../qwen25vl_sft_refcoco.py'
train_dataloader = dict(dataset=dict(query=dict(tasks=dict(_delete_=True, text2mask=1.0))))
