# Shards that tools/annotate.py wrote, two sets by weight, every kind of question recombined from
# weak labels: points and boxes of masks, descriptions or categories as text. The paper names the
# sources (LAION, Coyo) and neither their shares nor those of the tasks: all ours. val and test are
# RefCOCO (unc) val.
_base_ = './refcoco.py'
tasks = dict(text2mask=0.3, point2mask=0.15, box2mask=0.15, text2box=0.1, text2point=0.05,
             point2box=0.05, box2text=0.1, point2text=0.1)
query = dict(type='FormatQuery', codec={{_base_.codec}}, tasks=tasks)

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='JoinedDataset',
        weights=[1, 1],
        datasets=[
            dict(type='AnnotatedShardsDataset', data_root='data/laion', query=query),
            dict(type='AnnotatedShardsDataset', data_root='data/coyo', query=query),
        ]))
