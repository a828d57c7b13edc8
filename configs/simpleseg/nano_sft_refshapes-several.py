# SFT of nano on references to one object, to several and to none:
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_several \
#       --several 1 --absent 1 --scenes-val 300 --scenes-test 300
# Third of three stages, each from the last checkpoint of the one before it:
#   nano_pretrain_refshapes-several.py, nano_sft_refshapes-several-points.py, this one.
_base_ = './nano_sft_refshapes.py'
data_root = 'data/refshapes_several'
load_from = 'work_dirs/nano_sft_refshapes-several-points/last'
# An answer has the rings of all objects. '[' (token 66) begins an answer that says nothing, '[[['
# one with rings: how readily nothing is said is this bias, chosen on 1,400 queries of val.
model = dict(generation=dict(max_new_tokens=240, sequence_bias=[[[66], 1.0]]))
# Whether a thing is there is the first token of an answer. Outlines of few vertices (tokens=24)
# make it a larger part of what is learnt; all references of a picture are asked in one turn each.
train_dataloader = dict(
    dataset=dict(data_root=data_root, query=dict(turns=5, codec=dict(tokens=24))))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=280))
test_dataloader = dict(dataset=dict(data_root=data_root))
train_cfg = dict(max_iters=900, val_interval=300)
val_evaluator = [dict(type='GRESMetric'), dict(type='OutputHealthMetric')]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(interval=300, save_best='gres/gIoU'))
