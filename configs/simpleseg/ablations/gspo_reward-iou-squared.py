# IoU squared in place of IoU.
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(
    reward=dict(weights=dict(_delete_=True, iou_squared=1.0, centroid=0.2, format=0.2)))
