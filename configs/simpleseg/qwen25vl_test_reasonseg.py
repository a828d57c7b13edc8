# ReasonSeg val, by LISA's protocol; its long and short queries apart too. Test:
#   --cfg-options test_dataloader.dataset.split=test
_base_ = './qwen25vl_sft_refcoco.py'
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ReasonSegDataset',
        data_root='data/reasonseg',
        split='val',
        query=dict(type='FormatQuery', codec=_base_.codec, tasks=dict(text2mask=1.0)),
        test_mode=True))
test_evaluator = [
    dict(type='RESMetric', protocol='lisa', per_set=True),
    dict(type='OutputHealthMetric'),
]
