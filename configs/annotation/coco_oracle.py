# A COCO set as shards: annotations take the place of the models, and nothing of them is dropped
# that has a pixel.
_base_ = '../_base_/annotation/stages.py'

ann_file = 'data/coco/annotations/instances_train2017.json'
order = ['image', 'detect', 'select', 'segment', 'clean', 'polygon']
reader = dict(root='data/coco/train2017')
stages = dict(
    image=dict(min_side=1, max_aspect=1000),
    detect=dict(type='OracleDetect', ann_file=ann_file, annotated='stored'),
    select=dict(min_side=0, max_share=1, iou=1.1, max_objects=1000),
    segment=dict(type='OracleSegment', ann_file=ann_file),
    clean=dict(min_part=0, min_hole=0, min_area=1, min_box_iou=0, max_sides=4, max_iou=1.1),
    polygon=dict(min_iou=0))
