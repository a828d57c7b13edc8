"""Subcommands of ``simpleseg``, see :mod:`simpleseg_mm.cli`."""
