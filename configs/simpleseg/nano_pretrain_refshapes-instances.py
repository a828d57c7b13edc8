# nano learns which objects are meant, and how many: boxes and points of all of them, from the
# packaged weights that outline one object.
_base_ = './nano_sft_refshapes-instances.py'
load_from = None
model = dict(mllm=dict(pretrained='simpleseg_mm://nano_sft'))
train_dataloader = dict(
    dataset=dict(
        query=dict(turns=8, tasks=dict(_delete_=True, text2boxes=1.0, text2points=1.0))))
val_dataloader = dict(
    dataset=dict(query=dict(tasks=dict(_delete_=True, text2boxes=1.0))))
test_dataloader = dict(
    dataset=dict(query=dict(tasks=dict(_delete_=True, text2boxes=1.0))))
train_cfg = dict(max_iters=2100, val_interval=700)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.2, by_epoch=False, begin=40)
]
val_evaluator = [dict(type='mmdet.CocoMetric', metric='bbox')]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(interval=200, save_best='coco/bbox_mAP'))
