# Without the reward of the centroid's distance.
_base_ = '../qwen25vl_gspo_refcoco.py'
train_cfg = dict(reward=dict(weights=dict(_delete_=True, mask_iou=1.0, format=0.2)))
