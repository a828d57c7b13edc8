# What every run shares. Hooks are named, so that a child config changes one key of one of them.
default_scope = 'simpleseg_mm'
custom_imports = dict(
    imports=[
        'simpleseg_mm.datasets', 'simpleseg_mm.models', 'simpleseg_mm.engine',
        'simpleseg_mm.evaluation', 'simpleseg_mm.visualization'
    ],
    allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=10, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    # Ours, of MMEngine's name: written whole or not at all. Two are kept, should one be damaged.
    checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=500, max_keep_ckpts=2),
    trainable=dict(type='TrainableCheckpointHook'),
    grammar=dict(type='GrammarHook'),
    exact_resume=dict(type='ExactResumeHook'),
    reduce_logs=dict(type='ReduceLogsHook'),
    throughput=dict(type='ThroughputHook'),
    nonfinite=dict(type='NonFiniteGuardHook'),
    first_batch=dict(type='FirstBatchHook'),
    progress=dict(type='ProgressBarHook'),
    # tools/test.py --show and --show-dir
    visualization=dict(type='PredictionVisualizationHook'),
    # pictures of the answers to the same few validation queries; interval=-1: none
    samples=dict(type='SampleGenerationHook', interval=500, num_samples=4))

log_processor = dict(type='LogProcessor', window_size=10, by_epoch=False)
log_level = 'INFO'

# Without a GPU the tools take gloo instead of nccl.
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'))
# A fixed seed: on resume, the sampler is built before a saved seed could be restored.
randomness = dict(seed=0, deterministic=False)

# For others, a config sets vis_backends = [dict(type='LocalVisBackend'),
# dict(type='TensorboardVisBackend')]: tools/train.py and tools/test.py hand it to the visualizer.
visualizer = dict(type='SimpleSegVisualizer', vis_backends=[dict(type='LocalVisBackend')])

load_from = None
resume = False
