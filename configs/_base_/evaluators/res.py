# Masks, boxes and output health by Text4Seg's protocol. Rates and overlaps are in percent.
#
# Metrics of MMDetection run beside these, in a child config:
#   test_evaluator = _base_.test_evaluator + [
#       dict(type='mmdet.CocoMetric', metric=['bbox', 'segm']), dict(type='mmdet.RefSegMetric')]
val_evaluator = [
    dict(type='RESMetric'),
    dict(type='RECMetric'),
    dict(type='OutputHealthMetric'),
]
test_evaluator = val_evaluator
