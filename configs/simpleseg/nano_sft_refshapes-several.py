# SFT of nano on references to one object, to several and to none. It learns what is not there on
# boxes and points first:
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_several \
#       --several 1 --absent 1 --scenes-val 300 --scenes-test 300
#   python tools/train.py configs/simpleseg/nano_pretrain_refshapes-several.py
#   python tools/train.py configs/simpleseg/nano_sft_refshapes-several.py \
#       --cfg-options load_from=work_dirs/nano_pretrain_refshapes-several/iter_900.pth
_base_ = './nano_sft_refshapes.py'
data_root = 'data/refshapes_several'
model = dict(generation=dict(max_new_tokens=240))  # an answer has the rings of all objects
# Points beside polygons: short answers, of which more is the choice between something and nothing.
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        query=dict(turns=8, tasks=dict(text2mask=1.0, text2point=1.0))))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=280))
test_dataloader = dict(dataset=dict(data_root=data_root))
train_cfg = dict(max_iters=1700, val_interval=850)
val_evaluator = [dict(type='GRESMetric'), dict(type='OutputHealthMetric')]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(interval=850, save_best='gres/gIoU'))
