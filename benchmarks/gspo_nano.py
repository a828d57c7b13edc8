"""GSPO steps of nano beside TRL's ``GRPOTrainer``, on whatever machine this is.

    python benchmarks/run.py gspo

All weights are trained, by the recipe of configs/simpleseg/nano_gspo_refshapes.py, but for what
TRL does not do: it learns from all 16 answers of a prompt.
"""
import argparse

from gspo_step import compare
from measure import ROOT


def rows(quick: bool = False) -> list[dict]:
    return [compare('gspo_step_nano', argparse.Namespace(
        config=str(ROOT / 'configs/simpleseg/nano_gspo_refshapes.py'),
        model=str(ROOT / 'configs/_base_/models/nano_random.py'), prompts=2 if quick else 8,
        new_tokens=40 if quick else 100, size=224, steps=1 if quick else 5,
        cfg_options={'train_cfg.down_sample': None, 'train_cfg.min_std': 0.}))]
