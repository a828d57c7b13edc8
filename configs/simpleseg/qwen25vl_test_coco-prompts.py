# Promptable segmentation on COCO, as SAM is evaluated: a point or a box in, a mask out.
#   python tools/test.py configs/simpleseg/qwen25vl_test_coco-prompts.py CHECKPOINT
# Every object gets one prompt: half of them a point (the mask's innermost), half a box.
# Points alone: --cfg-options test_dataloader.dataset.query.tasks.box2mask=0
_base_ = './qwen25vl_sft_refcoco.py'
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='CocoQueryDataset',
        data_root='data/coco',
        ann_file='annotations/instances_val2017.json',
        img_dir='val2017',
        targets='object',
        bad_samples='skip',
        query=dict(
            type='FormatQuery',
            codec=_base_.codec,
            tasks=dict(point2mask=1.0, box2mask=1.0)),
        test_mode=True))
test_evaluator = [dict(type='PromptedMaskMetric'), dict(type='OutputHealthMetric')]
