# nano learns what is not there, before polygons: boxes and points of one object, of several and of
# none. Whether a thing is there is one token of an answer; a box or point has few others.
_base_ = './nano_sft_refshapes-several.py'
load_from = None
train_dataloader = dict(
    dataset=dict(
        query=dict(turns=9, tasks=dict(text2box=1.0, text2point=1.0))))
val_dataloader = dict(
    dataset=dict(query=dict(tasks=dict(_delete_=True, text2box=1.0))))
train_cfg = dict(max_iters=900, val_interval=300)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.3, by_epoch=False, begin=40)
]
# of GRESMetric only N-acc and T-acc tell something: boxes are no masks
val_evaluator = [dict(type='RECMetric', source='box'), dict(type='GRESMetric')]
test_evaluator = val_evaluator
test_dataloader = dict(dataset=dict(query=dict(tasks=dict(_delete_=True, text2box=1.0))))
default_hooks = dict(checkpoint=dict(interval=300, save_best='rec/Acc@0.5'))
