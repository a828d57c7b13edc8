"""Sphinx: python -m pip install -r docs/requirements.txt; python -m sphinx docs docs/_build"""
project = 'simpleseg_mm'
author = 'The simpleseg_mm contributors'
copyright = '2026, the simpleseg_mm contributors'

extensions = ['myst_parser']
source_suffix = {'.md': 'markdown'}
root_doc = 'index'
exclude_patterns = ['_build']

myst_heading_anchors = 3
html_theme = 'alabaster'
