# Coordinates as the released weights write them: three decimals.
_base_ = '../qwen25vl_sft_refcoco.py'
query = dict(codec=dict(grammar='decimal3'))
train_dataloader = dict(dataset=dict(query=query))
val_dataloader = dict(dataset=dict(query=query))
test_dataloader = val_dataloader
