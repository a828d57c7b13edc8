# SFT of nano on references to one object, to several and to none:
#   python tools/dataset_converters/generate_refshapes.py data/refshapes_several \
#       --several 1 --absent 1 --scenes-val 300 --scenes-test 300
_base_ = './nano_sft_refshapes.py'
data_root = 'data/refshapes_several'
model = dict(generation=dict(max_new_tokens=240))  # an answer has the rings of all objects
# Whether a thing is there is decided by one token of an answer. Points are short answers, so that
# more of a batch is that decision.
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        query=dict(turns=6, tasks=dict(text2mask=2.0, text2point=1.0))))
val_dataloader = dict(dataset=dict(data_root=data_root, indices=280))
test_dataloader = dict(dataset=dict(data_root=data_root))
train_cfg = dict(max_iters=3000, val_interval=1000)
val_evaluator = [dict(type='GRESMetric'), dict(type='OutputHealthMetric')]
test_evaluator = val_evaluator
default_hooks = dict(checkpoint=dict(save_best='gres/gIoU'))
