# RefCOCO from jxu124/refcoco: all splits and masks; the photos are those of COCO train2014.
#   hf download jxu124/refcoco --repo-type dataset --local-dir data/refcoco/jxu124
_base_ = './refcoco.py'
train_dataloader = dict(
    dataset=dict(sources=[dict(name='refcoco', split='train', parquet='jxu124')]))
val_dataloader = dict(
    dataset=dict(sources=[dict(name='refcoco', split='val', parquet='jxu124')]))
test_dataloader = val_dataloader
