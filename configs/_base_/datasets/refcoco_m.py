# RefCOCO-M: a part of RefCOCO's val with masks drawn anew, and its photos; evaluation alone.
#   hf download moondream/refcoco-m --repo-type dataset --local-dir data/refcoco/refcoco-m
_base_ = './refcoco.py'
val_dataloader = dict(dataset=dict(sources=[dict(name='refcoco-m', split='val')]))
test_dataloader = val_dataloader
