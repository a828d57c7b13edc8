# nano's base with questions of colour, count and position beside grounding and naming. After
# generating its data:
#   python tools/dataset_converters/refshapes_questions.py data/refshapes_base --split train \
#       --each 4 --kinds colour count position
_base_ = './nano_pretrain_refshapes.py'
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='JoinedDataset',
        datasets=[
            _base_.train_dataloader.dataset,
            dict(
                type='QuestionAnsweringDataset',
                data_root=_base_.data_root,
                questions='questions_train.jsonl',
                query=dict(type='FormatQuestion', turns=4)),
        ]))
