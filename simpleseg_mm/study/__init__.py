"""Studies: configs, or changes of one, by seeds; their runs, and the table that comes of them."""
from .launch import LAUNCHERS, Launched, launch_study
from .runs import StudyRun, States, make_run, states_of
from .spec import Arm, Study, read_study
from .table import Row, StudyTable, table_of

__all__ = ['LAUNCHERS', 'Arm', 'Launched', 'Row', 'States', 'Study', 'StudyRun', 'StudyTable',
           'launch_study', 'make_run', 'read_study', 'states_of', 'table_of']
