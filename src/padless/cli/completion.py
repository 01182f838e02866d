"""Shell completion generated from the parser, so that new options are completed too (extra `completion`)."""

from __future__ import annotations

from argparse import Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator

from ..errors import PadlessError

__all__ = ["script"]


def script(parser: ArgumentParser, shell: str) -> str:
    """The script that completes `parser` in `shell`: `"bash"`, `"zsh"` or `"fish"`.

    Raises:
        PadlessError: shtab is not installed (extra `completion`).
    """
    try:
        import shtab
    except ImportError as error:
        raise PadlessError("shell completion needs shtab: pip install shtab") from error

    for action in _actions(parser):
        names = str(action.metavar or "").split("|")
        if {"FILE", "PATH"} & set(names):
            action.complete = shtab.FILE  # type: ignore[attr-defined] - shtab's own name for it
        elif "DIR" in names:
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
    return shtab.complete(parser, shell) + "\n"


def _actions(parser: ArgumentParser) -> Iterator[Action]:
    """All options and arguments, including those of the commands."""
    for action in parser._actions:
        yield action
        if isinstance(action, _SubParsersAction):
            for command in action.choices.values():
                yield from _actions(command)
