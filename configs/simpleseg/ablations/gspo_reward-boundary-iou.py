# Boundary IoU beside mask IoU.
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(reward=dict(weights=dict(boundary_iou=0.5)))
