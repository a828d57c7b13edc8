# The eval splits of RefCOCO with their photos, from lmms-lab/RefCOCO. Of objects of several parts
# it has one: they are left out and counted. Its val is no split of the papers' tables: test on
# testA and testB.
#   hf download lmms-lab/RefCOCO --repo-type dataset --local-dir data/refcoco/lmms
_base_ = './refcoco.py'
val_dataloader = dict(
    dataset=dict(
        sources=[dict(name='refcoco', split='testA', parquet='lmms')], bad_samples='skip'))
test_dataloader = val_dataloader
