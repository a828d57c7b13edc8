# The paper's chain: Grounding-DINO, SAM, outline, description by a VLM; verified by the detector.
_base_ = ['../_base_/annotation/stages.py', '../_base_/annotation/coco_names.py']

detector = 'IDEA-Research/grounding-dino-base'
order = ['image', 'duplicates', 'detect', 'select', 'segment', 'clean', 'polygon', 'describe',
         'verify']
stages = dict(
    detect=dict(type='GroundingDetect', pretrained=detector, labels={{_base_.labels}},
                threshold=0.25, batch_size=8, resources=dict(num_gpus=0.5)),
    segment=dict(type='SamSegment', pretrained='facebook/sam-vit-huge', batch_size=8,
                 resources=dict(num_gpus=0.5)),
    describe=dict(type='DescribeByChat', pretrained='Qwen/Qwen2.5-VL-7B-Instruct', batch_size=8,
                  max_requests=16, count=2, max_words=30, resources=dict(num_gpus=1)),
    verify=dict(type='VerifyDescriptions', pretrained=detector, min_iou=0.8, min_score=0.2,
                batch_size=8, resources=dict(num_gpus=0.5)))
