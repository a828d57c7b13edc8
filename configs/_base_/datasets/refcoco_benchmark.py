# The eval splits of RefCOCO, RefCOCO+ and RefCOCOg with their photos, from
# jxu124/refcoco-benchmark; training reads the native files.
#   hf download jxu124/refcoco-benchmark --repo-type dataset --local-dir data/refcoco/benchmark
_base_ = './refcoco.py'
val_dataloader = dict(
    dataset=dict(sources=[dict(name='refcoco', split='val', parquet='benchmark')]))
test_dataloader = val_dataloader
