# Second part of nano's base: extreme points of the shapes beside boxes, points and names, still no
# polygons. Corners and tips are where outlines turn. From the first part's weights:
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_base \
#       --scenes-train 40000 --scenes-val 300 --objects 1 4
_base_ = './nano_pretrain_refshapes.py'
load_from = 'work_dirs/nano_pretrain_refshapes'
tasks = dict(
    _delete_=True, text2extreme=7, text2box=3, text2point=1, point2text=1, box2text=1)
train_dataloader = dict(batch_size=8, dataset=dict(query=dict(tasks=tasks, turns=8)))
train_cfg = dict(global_batch_size=8, max_iters=8000, val_interval=2000)
optim_wrapper = dict(
    optimizer=dict(lr=2e-3), paramwise_cfg=dict(adamw_keys=('lm_head', 'embed', 'merger')))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=40),
    dict(type='CosineAnnealingLR', eta_min_ratio=0.02, by_epoch=False, begin=40)
]
auto_scale_lr = dict(base_batch_size=8)
