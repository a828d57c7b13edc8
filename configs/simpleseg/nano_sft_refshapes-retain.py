# Half polygons, half what nano's base was trained on, in the base's own proportions: what of its
# grounding and naming SFT then leaves (docs/retention.md). Our choice.
_base_ = './nano_sft_refshapes.py'
tasks = dict(
    text2mask=10, text2box=4, text2point=2, point2box=1, point2text=2, box2text=1)
train_dataloader = dict(dataset=dict(query=dict(tasks=tasks)))
