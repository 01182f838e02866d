"""Progress on standard output: a line that is redrawn in a terminal, a line that only grows elsewhere."""

from __future__ import annotations

import sys

__all__ = ["bar"]

_WIDTH = 30


def bar(what: str, done: int, total: int) -> None:
    """Show that `done` of `total` are done; call it for every `done` from 1 to `total`.

    A terminal's bar is gone when all is done. A file or a pipe gets one mark after another and a line end, so
    that a log stays readable.
    """
    filled, before = _WIDTH * done // total, _WIDTH * (done - 1) // total
    label = f"  {what:<10} "
    if sys.stdout.isatty():
        line = f"\r{label}{'#' * filled}{'.' * (_WIDTH - filled)} {done:,}/{total:,}"
        text = line if done < total else "\r" + " " * len(line) + "\r"
    else:
        text = (label if done == 1 else "") + "#" * (filled - before) + ("\n" if done == total else "")
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()
