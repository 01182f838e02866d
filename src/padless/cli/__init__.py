"""The command line: parser, subcommands and shell completion."""

from .command import main

__all__ = ["main"]
