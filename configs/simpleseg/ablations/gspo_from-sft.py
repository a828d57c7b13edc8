# The paper's ablation of stages: SFT and RL. SFT alone: qwen25vl_sft_refcoco.py.
_base_ = '../qwen25vl_gspo_refcoco.py'
