# Every recombination of text, point, box and mask, equally often.
_base_ = '../qwen25vl_sft_refcoco.py'
tasks = dict(_delete_=True, text2point=1, text2box=1, text2mask=1, point2text=1, point2box=1,
             point2mask=1, box2text=1, box2point=1, box2mask=1, mask2text=1, mask2point=1,
             mask2box=1)
train_dataloader = dict(dataset=dict(query=dict(tasks=tasks)))
