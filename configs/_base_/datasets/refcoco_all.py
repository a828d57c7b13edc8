# The paper's four training sets; val and test are RefCOCO (unc) val.
_base_ = './refcoco.py'

train_dataloader = dict(
    dataset=dict(sources=[
        dict(name='refcoco', split_by='unc', split='train'),
        dict(name='refcoco+', split_by='unc', split='train'),
        dict(name='refcocog', split_by='umd', split='train'),
        dict(name='refclef', split_by='unc', split='train'),
    ]))
