# What reinforcement learning adds to default_runtime.py. Intervals count rollouts.
_base_ = './default_runtime.py'
default_hooks = dict(
    logger=dict(interval=1),
    # RL can raise its reward and lose on the task: the best checkpoint by validation is kept.
    checkpoint=dict(interval=25, save_best='res/gIoU', rule='greater'),
    rollouts=dict(type='RolloutTableHook', interval=25),
    samples=dict(interval=-1))
