# nano's base: grounding (points, boxes) and naming on RefShapes, from random weights, no polygons.
# Scenes of one object are among those of several: without them, 80,000 queries taught no location.
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_base \
#       --scenes-train 14000 --scenes-val 300 --objects 1 4
_base_ = [
    '../_base_/models/nano_random.py', '../_base_/datasets/refshapes.py',
    '../_base_/schedules/pretrain_nano.py', '../_base_/default_runtime.py'
]
data_root = 'data/refshapes_base'
tasks = dict(text2box=4, text2point=2, point2box=1, point2text=2, box2text=1)
train_dataloader = dict(
    dataset=dict(data_root=data_root, query=dict(tasks=tasks, turns=4)))
val_dataloader = dict(
    dataset=dict(
        data_root=data_root, query=dict(tasks=dict(_delete_=True, text2box=1)), indices=300))
val_evaluator = dict(type='RECMetric', source='box')
test_dataloader = val_dataloader
test_evaluator = val_evaluator
