# Shards that tools/annotate.py wrote, two sets by weight. The paper names the sources (LAION,
# Coyo) and neither their shares nor the tasks: ours. val and test are RefCOCO (unc) val.
_base_ = ['./refcoco.py', './weak_tasks.py']
query = dict(type='FormatQuery', codec={{_base_.codec}}, tasks={{_base_.weak_tasks}})

train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='JoinedDataset',
        weights=[1, 1],
        datasets=[
            dict(type='AnnotatedShardsDataset', data_root='data/laion', query=query),
            dict(type='AnnotatedShardsDataset', data_root='data/coyo', query=query),
        ]))
