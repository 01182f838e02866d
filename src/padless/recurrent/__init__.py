"""Recurrent layers on top of a backend: stacking, directions, dropout, states. The modules are in `padless.nn`."""

from ._stack import Options, reads_in_place, run

__all__ = ["Options", "reads_in_place", "run"]
