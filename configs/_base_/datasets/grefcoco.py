# gRefCOCO: grefs(unc).json and instances.json in data/refcoco/grefcoco. Another split of test:
#   --cfg-options test_dataloader.dataset.sources.0.split=testA
_base_ = './refcoco.py'
# Our choice: text tasks alone, since a point or a box says that something is there.
train_dataloader = dict(
    dataset=dict(
        sources=[dict(name='grefcoco', split='train')],
        query=dict(tasks=dict(_delete_=True, text2mask=0.8, text2box=0.2))))
val_dataloader = dict(dataset=dict(sources=[dict(name='grefcoco', split='val')]))
test_dataloader = val_dataloader
