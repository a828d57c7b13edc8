# A nano-sized Kimi-VL with random weights learns polygons: nano's data, codec, loop and metrics,
# another model. It has no grounding to start from; boxes and easy scenes help it (our choice):
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_easy --objects 1 2 \
#       --scenes-train 3000 --scenes-val 150 --scenes-test 100
_base_ = [
    '../_base_/models/nano_kimi_random.py', '../_base_/datasets/refshapes.py',
    '../_base_/evaluators/res.py', '../_base_/schedules/sft_nano.py',
    '../_base_/default_runtime.py'
]
data_root = 'data/refshapes_easy'
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        data_root=data_root,
        query=dict(templates='single', turns=2, tasks=dict(text2mask=1.0, text2box=1.0))))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=128))
test_dataloader = dict(dataset=dict(data_root=data_root))
# the projector's 512 x 512 matrix is left to AdamW, as nano's
optim_wrapper = dict(
    optimizer=dict(lr=4e-3), paramwise_cfg=dict(adamw_keys=('lm_head', 'embed', 'mm_projector')))
default_hooks = dict(
    checkpoint=dict(interval=600, save_best='res/gIoU', rule='greater'),
    samples=dict(interval=-1))
