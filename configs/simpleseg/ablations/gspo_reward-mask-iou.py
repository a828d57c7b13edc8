# Mask IoU alone.
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(reward=dict(weights=dict(_delete_=True, mask_iou=1.0)))
