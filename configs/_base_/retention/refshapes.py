# Fixed questions about RefShapes' test scenes: colour, count, position, naming, grounding. From
#   tools/dataset_converters/refshapes_questions.py data/refshapes --split test --limit 200
# Scored by tools/analysis_tools/retention.py, and during training by RetentionHook:
#   --cfg-options default_hooks.retention.type=RetentionHook default_hooks.retention.interval=250
retention_dataloader = dict(
    batch_size=32,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False, round_up=False),
    collate_fn=dict(type='collate_queries'),
    dataset=dict(
        type='QuestionAnsweringDataset',
        data_root='data/refshapes',
        questions='questions_test.jsonl',
        query=dict(type='FormatQuestion', codec=dict(grammar='int100')),
        test_mode=True))
retention_evaluator = [
    dict(type='QuestionAnsweringMetric', prefix='retention'),
    dict(type='RECMetric', source='box', prefix='retention/grounding'),
]
