# RefShapes scenes as shards: what the data engine would find in them.
_base_ = './coco_oracle.py'
scenes = 'data/refshapes_web_scenes'
ann_file = f'{scenes}/refshapes/instances.json'
order = ['image', 'detect', 'select', 'segment', 'clean']
reader = dict(root=f'{scenes}/images')
stages = dict(detect=dict(ann_file=ann_file), segment=dict(ann_file=ann_file))
