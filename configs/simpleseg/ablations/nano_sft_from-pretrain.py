# nano pre-trained on shards of the data engine, then SFT. SFT alone: nano_sft_refshapes.py.
_base_ = '../nano_sft_refshapes.py'
load_from = 'work_dirs/nano_pretrain_web'
