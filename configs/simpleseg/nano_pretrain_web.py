# nano on shards of the data engine: categories of unseen scenes, points, boxes and masks.
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_web_scenes --seed 1
#   python tools/annotate.py configs/annotation/refshapes_oracle.py --work-dir data/refshapes_web
_base_ = ['./nano_sft_refshapes.py', '../_base_/datasets/weak_tasks.py']
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='AnnotatedShardsDataset',
        data_root='data/refshapes_web',
        query=dict(
            type='FormatQuery',
            codec={{_base_.codec}},
            templates='single',
            turns=3,
            tasks={{_base_.weak_tasks}})))
