"""Registries of simpleseg_mm: children of MMEngine's root registries, scope ``simpleseg_mm``.

A name is looked up here, then in MMEngine, never in a sibling: write ``mmdet.CocoMetric`` for
what lives in MMDetection.
"""
import inspect
from collections.abc import Mapping

from mmengine import registry as root
from mmengine.registry import Registry

_SCOPE = 'simpleseg_mm'


def _child(name: str, parent: Registry, *locations: str) -> Registry:
    return Registry(name, parent=parent, scope=_SCOPE,
                    locations=[f'{_SCOPE}.{location}' for location in locations])


DATASETS = _child('dataset', root.DATASETS, 'datasets')
DATA_SAMPLERS = _child('data sampler', root.DATA_SAMPLERS, 'datasets')
TRANSFORMS = _child('transform', root.TRANSFORMS, 'datasets')
FUNCTIONS = _child('function', root.FUNCTIONS, 'datasets')
MODELS = _child('model', root.MODELS, 'models')
METRICS = _child('metric', root.METRICS, 'evaluation')
VISUALIZERS = _child('visualizer', root.VISUALIZERS, 'visualization.visualizer')
VISBACKENDS = _child('vis_backend', root.VISBACKENDS, 'visualization.backends')
HOOKS = _child('hook', root.HOOKS, 'engine')
STRATEGIES = _child('strategy', root.STRATEGIES, 'engine')
LOOPS = _child('loop', root.LOOPS, 'engine')
OPTIMIZERS = _child('optimizer', root.OPTIMIZERS, 'engine')
OPTIM_WRAPPER_CONSTRUCTORS = _child('optimizer wrapper constructor',
                                    root.OPTIM_WRAPPER_CONSTRUCTORS, 'engine')
LOG_PROCESSORS = _child('log processor', root.LOG_PROCESSORS, 'engine')
OPTIM_WRAPPERS = _child('optim_wrapper', root.OPTIM_WRAPPERS, 'engine')
PARAM_SCHEDULERS = _child('parameter scheduler', root.PARAM_SCHEDULERS, 'engine')
INFERENCERS = _child('inferencer', root.INFERENCERS, 'apis')
# Without a parent in MMEngine.
FAMILIES = Registry('family of multimodal LLMs', scope=_SCOPE, locations=[f'{_SCOPE}.models'])
MEASURES = Registry('measure of acceleration', scope=_SCOPE,
                    locations=[f'{_SCOPE}.acceleration'])
REWARDS = Registry('reward', scope=_SCOPE, locations=[f'{_SCOPE}.engine'])
ROLLOUTS = Registry('rollout engine', scope=_SCOPE, locations=[f'{_SCOPE}.engine'])
STAGES = Registry('annotation stage', scope=_SCOPE, locations=[f'{_SCOPE}.annotation.stages'])


def builds(registry: Registry, node: Mapping | None, *classes: type) -> bool:
    """Whether a config's node builds one of these classes, or one that is derived from them.

    Its ``type`` may be any name that the registry knows, or a class. An unknown one builds none.
    """
    kind = (node or {}).get('type')
    if isinstance(kind, str):
        try:
            kind = registry.get(kind)
        except Exception:  # of another project's scope, which may not be importable here
            return False
    return inspect.isclass(kind) and issubclass(kind, classes)
