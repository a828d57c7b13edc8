# SFT of nano on objects of 24 to 60 of 896 pixels (3 to 7 of the 112 that it sees), in the whole
# picture and in crops round the target: the two views of model.second_look. From the packaged
# weights that outline larger objects. All numbers are ours.
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_small --size 896 \
#       --object-size 24 60 --scenes-train 2000 --scenes-val 60 --scenes-test 60
_base_ = './nano_sft_refshapes.py'
data_root = 'data/refshapes_small'
model = dict(
    mllm=dict(pretrained='simpleseg_mm://nano_sft'),
    second_look=dict())
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        pipeline=[
            dict(type='LoadImage'),
            dict(type='LoadTargetMask'),
            dict(type='CropToTarget', prob=0.5),
        ]))
train_cfg = dict(max_iters=800, val_interval=800)
val_dataloader = dict(dataset=dict(data_root=data_root))
test_dataloader = dict(dataset=dict(data_root=data_root))
