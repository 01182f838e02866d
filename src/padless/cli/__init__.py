"""The command line: parser, subcommands and shell completion."""

from __future__ import annotations

import sys
from collections.abc import Sequence

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command line `arguments` (default: the process's own)."""
    try:
        from . import command  # here, so that an interrupt while it loads is caught too

        return command.main(arguments)
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("padless: interrupted", file=sys.stderr)
        return 1
