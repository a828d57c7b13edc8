# Objects one by one: AP by COCO's own code (fractions), counts, panoptic quality and matched IoU
# (percent), and all objects of an answer together.
val_evaluator = [
    dict(type='mmdet.CocoMetric', metric=['segm', 'bbox']),
    dict(type='InstanceMetric'),
    dict(type='GRESMetric'),
    dict(type='OutputHealthMetric'),
]
test_evaluator = val_evaluator
