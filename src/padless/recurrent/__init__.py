"""Recurrent layers over a backend: stacking, directions, dropout, states. Modules live in `padless.nn`."""

from ._stack import Options, run

__all__ = ["Options", "run"]
