# RefShapes, from tools/dataset_converters/generate_refshapes.py
data_root = 'data/refshapes'
# Our choice: 0.927 IoU at 7.5 vertices a mask (tokens=60: 0.961 at 9.9). Shorter answers are more
# updates a minute, and taught more in the same number of updates (gIoU 0.654 against 0.646).
codec = dict(preset='default', grammar='int100', tokens=40)

train_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='InfiniteVisitSampler', shuffle=True),
    collate_fn=dict(type='collate_queries'),
    dataset=dict(
        type='RefShapesDataset',
        data_root=data_root,
        split='train',
        # tasks: text2mask unless a child config names some
        query=dict(type='FormatQuery', codec=codec)))
val_dataloader = dict(
    batch_size=32,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='collate_queries'),
    dataset=dict(
        type='RefShapesDataset',
        data_root=data_root,
        split='val',
        query=dict(type='FormatQuery', codec=codec, tasks=dict(text2mask=1.0)),
        test_mode=True))
test_dataloader = dict(val_dataloader, dataset=dict(val_dataloader['dataset'], split='test'))
