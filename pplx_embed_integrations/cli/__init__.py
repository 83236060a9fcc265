"""The command line `pplx-embed`: one module per command."""

from .main import main

__all__ = ["main"]
