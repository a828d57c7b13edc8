# Fixed questions of one's own: data/retention/questions.jsonl and the images that it names; its
# form is in docs/retention.md.
retention_dataloader = dict(
    batch_size=8,
    num_workers=2,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='collate_queries'),
    dataset=dict(
        type='QuestionAnsweringDataset',
        data_root='data/retention',
        questions='questions.jsonl',
        query=dict(
            type='FormatQuestion',
            codec=dict(grammar='int1000'),
            # our choice: an instruct model answers in a sentence unless told
            prompt='{question}\nAnswer the question using a single word or phrase.'),
        test_mode=True))
retention_evaluator = [
    dict(type='QuestionAnsweringMetric', prefix='retention'),
    dict(type='RECMetric', source='box', prefix='retention/grounding'),
]
