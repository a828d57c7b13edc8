# COCO by category: all objects of a category in one answer, and categories that are not there.
# A folder with lists of RefCOCO's eval images keeps these out of training:
#   --cfg-options train_dataloader.dataset.exclude_eval_images=data/eval_images
_base_ = './refcoco.py'
train_set = dict(
    _delete_=True,
    type='CocoQueryDataset',
    data_root='data/coco',
    ann_file='annotations/instances_train2017.json',
    img_dir='train2017',
    split='train',
    targets='category',
    absent=1,
    bad_samples='skip',
    query=dict(type='FormatQuery', codec=_base_.codec, tasks=dict(text2mask=1.0)))
val_set = dict(
    train_set,
    ann_file='annotations/instances_val2017.json',
    img_dir='val2017',
    split='val',
    test_mode=True)
train_dataloader = dict(dataset=train_set)
val_dataloader = dict(dataset=dict(val_set, indices=2000))
test_dataloader = dict(dataset=val_set)
