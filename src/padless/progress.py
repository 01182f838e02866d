"""Progress display: one terminal line, redrawn in place."""

from __future__ import annotations

import sys
import time

__all__ = ["Meter", "bar"]

_WIDTH = 30
_PAUSE_SECONDS = 0.1  # between two updates of a meter


def bar(what: str, done: int, total: int) -> None:
    """Show on standard output that `done` of `total` are done; call it for every `done` from 1 to `total`.

    In a terminal the bar disappears when all is done. A file or a pipe gets one mark after another and a line end,
    so that logs stay readable.
    """
    if sys.stdout.isatty():
        line = _line(what, done, total, f"{done:,}/{total:,}")
        text = line if done < total else _erasing(line)
    else:
        filled, before = _WIDTH * done // total, _WIDTH * (done - 1) // total
        text = (_label(what) if done == 1 else "") + "#" * (filled - before) + ("\n" if done == total else "")
    if text:
        sys.stdout.write(text)
        sys.stdout.flush()


class Meter:
    """A bar on standard error, for work in large steps; shows nothing if that is not a terminal.

    Use it as a context manager, so that the line is removed before anything else is written.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._is_on = sys.stderr is not None and sys.stderr.isatty()
        self._drawn = ""
        self._next = time.monotonic() + _PAUSE_SECONDS  # fast work shows nothing

    def __call__(self, done: int, total: int | None) -> None:
        """Show that `done` are done, of `total` if that is known."""
        if not self._is_on or time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _PAUSE_SECONDS
        if total:
            line = _line(self.what, min(done, total), total, f"{100 * min(done, total) // total} %")
        else:
            line = f"\r{_label(self.what)}{done:,}"
        self._write(line.ljust(len(self._drawn)))
        self._drawn = line

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._drawn:
            self._write(_erasing(self._drawn))

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()


def _label(what: str) -> str:
    return f"  {what:<10} "


def _line(what: str, done: int, total: int, suffix: str) -> str:
    filled = _WIDTH * done // total
    return f"\r{_label(what)}{'#' * filled}{'.' * (_WIDTH - filled)} {suffix}"


def _erasing(line: str) -> str:
    return "\r" + " " * len(line) + "\r"
