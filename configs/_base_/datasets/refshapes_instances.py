# RefShapes with like objects, one to six and none, each asked for by itself:
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_instances \
#       --like 1 --absent 1 --objects 1 6 --scenes-train 10000 --scenes-val 300 --scenes-test 300
_base_ = './refshapes.py'
data_root = 'data/refshapes_instances'
tasks = dict(text2mask=0.0, text2masks=1.0)
train_dataloader = dict(dataset=dict(data_root=data_root, query=dict(templates='single')))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=280, query=dict(tasks=tasks)))
test_dataloader = dict(dataset=dict(data_root=data_root, query=dict(tasks=tasks)))
