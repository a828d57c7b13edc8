# From the SFT stage of `make quickstart`.
_base_ = '../nano_gspo_refshapes.py'
load_from = 'work_dirs/quickstart/sft'
