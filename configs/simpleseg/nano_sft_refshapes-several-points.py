# Between boxes and outlines of few vertices: outlines of many, and points, which keep alive what
# was learnt about absent things. Its learning rate ends at half its way.
_base_ = './nano_sft_refshapes-several.py'
load_from = 'work_dirs/nano_pretrain_refshapes-several/last'
train_dataloader = dict(
    dataset=dict(query=dict(
        turns=8, codec=dict(tokens=40), tasks=dict(text2mask=1.0, text2point=1.0))))
train_cfg = dict(max_iters=850, val_interval=850)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=40, T_max=1660)
]
default_hooks = dict(checkpoint=dict(interval=850))
