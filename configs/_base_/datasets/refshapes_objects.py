# RefShapes, all objects of a scene in one answer, each with its name ('red circle'):
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_objects \
#       --scenes-train 3000 --scenes-val 300 --scenes-test 300
_base_ = './refshapes.py'
data_root = 'data/refshapes_objects'
objects = dict(
    data_root=data_root,
    targets='picture',
    query=dict(templates='single', tasks=dict(text2mask=0.0, image2objects=1.0)))
train_dataloader = dict(dataset=objects)
val_dataloader = dict(dataset=objects)
test_dataloader = dict(dataset=objects)
