"""`padless draw`: reads lengths, then prints the batch or writes it as SVG, PNG or a page."""

from __future__ import annotations

import os
import re
import shutil
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from ..errors import LengthsError, UsageError
from ..outputs import check_outputs, check_writable, write
from ..progress import Meter
from ..report.command import add_reading_options

__all__ = ["EXAMPLES", "add_arguments", "run"]

EXAMPLES = """\
examples:
  padless draw 4 6 8 5 4 3 7 8
  padless draw 4 6 8 5 4 3 7 8 --html batch.html
  head -32 lengths.txt | padless draw - --svg batch.svg"""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def add_arguments(parser: ArgumentParser) -> None:
    """Options of `padless draw`."""
    parser.add_argument(
        "lengths",
        nargs="*",
        metavar="LENGTH|FILE",
        help="the lengths themselves; or one txt, csv, tsv, json, jsonl or parquet file, as for `padless report`; or - "
        "for standard input",
    )
    add_reading_options(parser, "reading a file")
    parser.add_argument("--svg", type=Path, metavar="PATH", help="write the picture as SVG")
    parser.add_argument(
        "--png", type=Path, metavar="PATH", help="write the picture as PNG (needs Matplotlib)"
    )
    parser.add_argument("--html", type=Path, metavar="PATH", help="write an interactive page to step through")
    parser.add_argument(
        "--lang", choices=("en", "ko"), help="language of the page that --html writes (default en)"
    )
    parser.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        default="auto",
        help="when to use colour; auto: in a terminal, unless NO_COLOR is set (default auto)",
    )


def run(options: Namespace) -> None:
    """Draw what `options` say.

    Raises:
        UsageError: there are no lengths on the command line, or none that can be drawn.
        PadlessError: a file cannot be read or written, what is in it cannot be drawn, or Matplotlib is missing.
    """
    if options.lang and options.html is None:
        raise UsageError("--lang needs --html")
    words = [word for argument in options.lengths for word in argument.split(",") if word.strip()]
    if not words:
        raise UsageError(
            "no lengths: give them, or a FILE, or - for standard input (see padless draw --help)"
        )
    are_lengths = all(map(_NUMBER.fullmatch, words))
    outputs = [path for path in (options.svg, options.html, options.png) if path is not None]
    check_outputs(outputs, None if are_lengths else options.lengths[0])
    for path in outputs:
        check_writable(path)
    if are_lengths:
        _refuse_reading(options)
        try:
            _draw([_number(i, word) for i, word in enumerate(words)], "", options)
        except LengthsError as error:
            raise UsageError(str(error)) from error
        return
    if len(options.lengths) > 1:
        wrong = next(word for word in words if not _NUMBER.fullmatch(word))
        raise UsageError(f"{wrong!r} is not a length; give lengths only, or one FILE")
    from ..report.reading import read_lengths

    with Meter("reading") as meter:
        found = read_lengths(
            options.lengths[0],
            format=options.format,
            column=options.column,
            words=options.words,
            progress=meter,
        )
    _draw(found.values, found.source, options)


def _refuse_reading(options: Namespace) -> None:
    """Raise UsageError where an option would do nothing."""
    for name in ("format", "column", "words"):
        if getattr(options, name):
            raise UsageError(f"--{name} needs a FILE, but lengths were given")


def _draw(lengths: Any, name: str, options: Namespace) -> None:
    texts = {}  # all of them before one is written, since too many sequences raise
    if options.svg is not None:
        from .svg import draw_svg

        texts[options.svg] = draw_svg(lengths, name=name)
    if options.html is not None:
        from .html import draw_html

        texts[options.html] = draw_html(lengths, name=name, lang=options.lang or "en")
    for path, text in texts.items():
        write(path, text)
        print(f"wrote {_printable(path)}")
    if options.png is not None:
        from .picture import save_picture

        save_picture(lengths, options.png)
        print(f"wrote {_printable(options.png)}")
    if options.svg is options.html is options.png is None:
        from .text import NARROWEST, draw_text

        # COLUMNS, the terminal's own width, or 80.
        width = max(shutil.get_terminal_size().columns, NARROWEST)
        print(
            draw_text(lengths, width=width, color=_is_coloured(options.color), ascii_only=not _has_blocks())
        )


def _number(i: int, word: str) -> int | float:
    if len(word) > 40:
        raise LengthsError(f"lengths[{i}] = {word[:12]}... does not fit into 64 bits")
    return int(word) if word.lstrip("+-").isdecimal() else float(word)


def _printable(path: Path) -> str:
    """`path` as standard output can show it, whatever bytes it is of."""
    encoding = sys.stdout.encoding or "ascii"
    return str(path).encode(encoding, "backslashreplace").decode(encoding)


def _is_coloured(when: str) -> bool:
    if when != "auto":
        return when == "always"
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _has_blocks() -> bool:
    """Whether standard output has the block characters; what has them in part is as good as none."""
    try:
        "█▒▏▁·…".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
