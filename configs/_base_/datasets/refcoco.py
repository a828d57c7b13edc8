# RefCOCO (unc). Another set or split of test:
#   --cfg-options test_dataloader.dataset.sources.0.split=testA
#   --cfg-options test_dataloader.dataset.sources.0.name=refcocog (split_by follows: umd)
data_root = 'data/refcoco'
codec = dict(preset='default', grammar='int1000', tokens=150)  # our choice

train_dataloader = dict(
    batch_size=8,
    num_workers=4,
    persistent_workers=True,
    sampler=dict(type='InfiniteVisitSampler', shuffle=True),
    collate_fn=dict(type='collate_queries'),
    dataset=dict(
        type='RefCOCODataset',
        data_root=data_root,
        sources=[dict(name='refcoco', split='train')],
        query=dict(
            type='FormatQuery',
            codec=codec,
            # our choice: the paper mixes tasks, and does not say how
            tasks=dict(text2mask=0.7, text2box=0.1, text2point=0.05, point2mask=0.05,
                       box2mask=0.1))))
val_dataloader = dict(
    batch_size=8,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='collate_queries'),
    dataset=dict(
        type='RefCOCODataset',
        data_root=data_root,
        sources=[dict(name='refcoco', split='val')],
        query=dict(type='FormatQuery', codec=codec, tasks=dict(text2mask=1.0)),
        test_mode=True))
test_dataloader = val_dataloader
