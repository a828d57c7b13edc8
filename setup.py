"""Packaging; the metadata stands in setup.cfg.

``mim`` looks for configs, tools and the model index in ``simpleseg_mm/.mim``: a build copies them
there, an editable install needs no copy.
"""
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithMim(build_py):
    """build_py that puts what mim reads beside the package's modules."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib) / 'simpleseg_mm' / '.mim'
        for name in ('configs', 'tools', 'demo'):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target / name, dirs_exist_ok=True,
                                ignore=shutil.ignore_patterns('__pycache__'))
        shutil.copy(ROOT / 'model-index.yml', target / 'model-index.yml')


setup(cmdclass=dict(build_py=BuildWithMim))
