# SFT of nano on masks from points, boxes and sentences; its test is that of promptable
# segmenters, on the objects of unseen scenes in a COCO file of their own:
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_prompts \
#       --scenes-train 0 --scenes-val 0 --scenes-test 300
_base_ = './nano_sft_refshapes.py'
tasks = dict(point2mask=1.0, box2mask=1.0)
train_dataloader = dict(dataset=dict(query=dict(tasks=dict(tasks, text2mask=1.0))))
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CocoQueryDataset',
        data_root='data/refshapes_prompts',
        ann_file='refshapes/instances.json',
        img_dir='images',
        name='refshapes',
        split='test',
        query=dict(type='FormatQuery', codec=_base_.codec, tasks=tasks),
        test_mode=True))
test_evaluator = [dict(type='PromptedMaskMetric'), dict(type='OutputHealthMetric')]
