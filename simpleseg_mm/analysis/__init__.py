"""What a config would need, before it is run."""
from .plan import Batch, Measured, make_plan, plan_batch, rehearse, training_turns
from .rehearsal import Phase, Rehearsal
from .shapes import build_on_meta, shapes, without_weights

__all__ = ['Batch', 'Measured', 'Phase', 'Rehearsal', 'build_on_meta', 'make_plan', 'plan_batch',
           'rehearse', 'shapes', 'training_turns', 'without_weights']
