"""Packaging; the metadata stands in setup.cfg.

``mim`` looks for configs, tools and the model index in ``simpleseg_mm/.mim``: a build copies them
there, an editable install needs no copy. onedl-mim takes the folder of the first entry of an
installation's RECORD for the package. pip sorts these entries, and ``../../../bin/simpleseg``
comes before all letters: a second copy is in a folder whose name comes before it.
"""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
FIRST = '+simpleseg_mm'  # "+" is before "."


class BuildWithMim(build_py):
    """build_py that puts what mim reads beside the package's modules."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for package in ('simpleseg_mm', FIRST):
            target = Path(self.build_lib) / package / '.mim'
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            for name in ('configs', 'tools', 'demo'):
                shutil.copytree(ROOT / name, target / name,
                                ignore=shutil.ignore_patterns('__pycache__'))
            shutil.copy(ROOT / 'model-index.yml', target / 'model-index.yml')


setup(cmdclass=dict(build_py=BuildWithMim))
