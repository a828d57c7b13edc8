# RefCOCO in the grammar of the released weights, decoded as the official code does.
_base_ = './refcoco.py'
codec = dict(_delete_=True, preset='paper', grammar='fixed3')
train_dataloader = dict(dataset=dict(query=dict(codec=codec)))
val_dataloader = dict(dataset=dict(query=dict(codec=codec)))
test_dataloader = val_dataloader
