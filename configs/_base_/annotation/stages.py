# The stages that need no model, and the order of all. A child names a detector, a segmenter and
# what describes; --cfg-options stages.select.min_score=0.4 changes one threshold. All thresholds
# are our choice: the paper discloses none.
default_scope = 'simpleseg_mm'
custom_imports = dict(imports=['simpleseg_mm.annotation.stages'], allow_failed_imports=False)

reader = dict(type='ReadFolder', root='data/images', shard_size=256)
stages = dict(
    image=dict(type='FilterImage', min_side=256, max_pixels=50_000_000, max_aspect=4),
    duplicates=dict(type='FilterDuplicates', distance=2),
    select=dict(type='SelectBoxes', min_score=0.3, min_side=8, max_share=0.95, iou=0.7,
                max_objects=50),
    clean=dict(type='CleanMasks', min_part=0.01, min_hole=0.005, min_area=100, min_score=0.7,
               min_box_iou=0.5, max_sides=3, max_iou=0.8),
    polygon=dict(type='WritePolygons', min_iou=0.5,
                 codec=dict(preset='default', grammar='int1000', tokens=150)))
