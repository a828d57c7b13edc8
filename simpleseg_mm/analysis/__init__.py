"""What a config would need, before it is run."""
from .batch import Batch, plan_batch
from .plan import make_plan
from .rehearsal import Phase, Rehearsal
from .shapes import build_on_meta, shapes, without_weights
from .sharing import share_out, strategy_of
from .step import Measured, rehearse, training_turns

__all__ = ['Batch', 'Measured', 'Phase', 'Rehearsal', 'build_on_meta', 'make_plan', 'plan_batch',
           'rehearse', 'shapes', 'share_out', 'strategy_of', 'training_turns', 'without_weights']
