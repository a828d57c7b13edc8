# A few real references of RefCOCO, RefCOCO+ and RefCOCOg. Training and evaluation use the same
# samples: what is checked is that photos, files, sizes and polygons agree.
_base_ = './refcoco.py'

data_root = 'data/refcoco_mini'
sources = [
    dict(name='refcoco', split=['val', 'testB'], img_dir='images'),
    dict(name='refcoco+', split=['val', 'testB'], img_dir='images'),
    dict(name='refcocog', split=['val', 'test'], img_dir='images'),
]
train_dataloader = dict(
    num_workers=1,
    dataset=dict(
        data_root=data_root,
        sources=sources,
        query=dict(tasks=dict(_delete_=True, text2mask=1.0), templates='single')))
val_dataloader = dict(num_workers=1, dataset=dict(data_root=data_root, sources=sources))
test_dataloader = val_dataloader
