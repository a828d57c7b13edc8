"""Optimizers and their constructors."""
from .constructor import MuonConstructor
from .muon import MuonAdamW, orthogonalize

__all__ = ['MuonAdamW', 'MuonConstructor', 'orthogonalize']
