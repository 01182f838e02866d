"""`padless report`: reads lengths, counts what every policy pads, prints a table, JSON or a page."""

from __future__ import annotations

import json
import sys
import warnings
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..options import MOST, MOST_THREADS
from ..outputs import check_outputs, check_writable, write
from ..progress import Meter
from .given import POLICIES

if TYPE_CHECKING:
    from .contents import Report
    from .network import Network
    from .reading import Collected

__all__ = ["DESCRIPTION", "EXAMPLES", "add_arguments", "add_reading_options", "count", "run", "threads"]

DESCRIPTION = """\
Computes the cost of padding for the sequences of a file, for each way of
forming batches. The file contains lengths or the sequences themselves:
  txt      a line with one integer is a length, any other a sequence of words
  csv tsv  one column: integers are lengths, text is counted in words; csv may
           be separated by commas, semicolons or tabs
  json     one array; its items are as the lines of jsonl
  jsonl    a line is a number (a length), a string (words), a list (items), or
           an object that contains one of these
  parquet  one column of integers, text or lists (needs pyarrow)"""
EXAMPLES = """\
examples:
  padless report lengths.txt
  padless report corpus.jsonl --column text --tokens 4096
  cut -f2 corpus.tsv | padless report --words
  padless report lengths.csv --network lstm --hidden-size 512 --training
  padless report lengths.txt --batch-size 64 --html report.html
  padless report lengths.txt --json | python -m json.tool"""

_FORMATS = ("txt", "csv", "tsv", "json", "jsonl", "parquet")
_CELLS = ("lstm", "gru", "rnn")
_BATCH_SIZE, _SIZE, _SECONDS = 32, 256, 5.0  # where no option says


def add_arguments(parser: ArgumentParser) -> None:
    """Options of `padless report`."""
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="file to read, may be compressed by gzip (default, or with -: standard input)",
    )
    add_reading_options(parser, "reading")
    group = parser.add_argument_group("batches")
    group.add_argument("--batch-size", type=count, metavar="N", help="sequences per batch (default 32)")
    group.add_argument("--tokens", type=count, metavar="N", help="rows per batch, instead of --batch-size")
    group.add_argument(
        "--padded", action="store_true", help="apply --tokens to the cells of the grid instead of rows"
    )
    group.add_argument(
        "--policy",
        action="append",
        choices=POLICIES,
        help="count only this policy; may be repeated (default: all)",
    )
    group.add_argument(
        "--seed",
        type=_seed,
        default=0,
        metavar="N",
        help="seed of everything random (default 0)",
    )
    group = parser.add_argument_group("cost")
    group.add_argument(
        "--width",
        type=count,
        default=1,
        metavar="N",
        help="numbers per row, for the multiplications (default 1)",
    )
    group.add_argument(
        "--network",
        choices=_CELLS,
        help="count the FLOPs of a recurrent network too (with --measure, default lstm)",
    )
    group.add_argument(
        "--input-size", type=count, metavar="N", help="input size of the network (default 256)"
    )
    group.add_argument(
        "--hidden-size", type=count, metavar="N", help="hidden size of the network (default 256)"
    )
    group.add_argument("--layers", type=count, metavar="N", help="layers of the network (default 1)")
    group.add_argument("--bidirectional", action="store_true", help="make the network bidirectional")
    group.add_argument("--training", action="store_true", help="include the backward pass")
    group.add_argument(
        "--measure",
        action="store_true",
        help="time the network on a sample of batches, padded in torch and packed in padless",
    )
    group.add_argument(
        "--threads",
        type=threads,
        metavar="N",
        help="threads for --measure; 1 measures CPU time (default: torch's setting)",
    )
    group.add_argument(
        "--seconds", type=_seconds, metavar="S", help="approximate time per policy for --measure (default 5)"
    )
    group = parser.add_argument_group("output")
    group.add_argument("--json", action="store_true", help="print JSON instead of the table")
    group.add_argument(
        "--html", type=Path, metavar="PATH", help="also write the report as a self-contained page"
    )


def add_reading_options(parser: ArgumentParser, title: str) -> None:
    """Options that say how to read a file of lengths, in a group with this title."""
    group = parser.add_argument_group(title)
    group.add_argument(
        "--format",
        choices=_FORMATS,
        help="format of the file (default: from the suffix, else from the first line)",
    )
    group.add_argument(
        "--column",
        metavar="NAME",
        help="column of a csv, tsv or parquet file, or key of the objects in json or jsonl",
    )
    group.add_argument("--words", action="store_true", help="count integers as words (txt, csv, tsv)")


def run(options: Namespace, measure: Callable[..., Any]) -> None:
    """Read, count and print.

    Args:
        options: of `add_arguments`.
        measure: `padless.bench.policies.measure_policies`, or a replacement for it. It needs torch and the layers,
            which `report` must not import, so the caller passes it in.

    Raises:
        UsageError: options that make no sense.
        PadlessError: a file that cannot be read or written, or holds no lengths.
    """
    _check(options)
    check_outputs([options.html], options.file)
    if options.html is not None:
        check_writable(options.html)
    found = _read(options)
    with warnings.catch_warnings():
        # The planner warns of sequences over the budget; the report has a line of them.
        warnings.simplefilter("ignore", UserWarning)
        report = _count_up(found, options)
        if options.measure:
            with Meter("measuring") as meter:
                measured = measure(
                    found.values,
                    report,
                    threads=options.threads,
                    seconds=options.seconds or _SECONDS,
                    progress=meter,
                )
            report = report.with_measured(measured)
    _write(report, options)


def _count_up(found: Collected, options: Namespace) -> Report:
    # These import NumPy, which what can be wrong with options and files need not wait for.
    from .contents import Report
    from .spread import spread_of
    from .survey import batchings, survey

    policies = []
    for batching in batchings(
        found.values,
        dict.fromkeys(options.policy or POLICIES),
        batch_size=None if options.tokens else options.batch_size or _BATCH_SIZE,
        tokens=options.tokens,
        padded=options.padded,
        seed=options.seed,
    ):
        with Meter(batching.policy) as meter:
            policies.append(survey(found.values, batching, progress=meter))
    return Report(
        source=found.source,
        column=found.column,
        note=found.note,
        unit=found.unit or "lengths",
        spread=spread_of(found.values),
        policies=tuple(policies),
        over=sum(length > options.tokens for length in found.values) if options.tokens else 0,
        width=options.width,
        network=_network(options),
    )


def _check(options: Namespace) -> None:
    """Raise UsageError where an option would do nothing, or where nothing is there to be read."""
    if options.tokens and options.batch_size:
        raise UsageError("--batch-size and --tokens: give one of them")
    if options.padded and not options.tokens:
        raise UsageError("--padded needs --tokens")
    if not options.network and not options.measure:
        for name in ("input_size", "hidden_size", "layers", "bidirectional", "training"):
            if getattr(options, name):
                raise UsageError(f"--{name.replace('_', '-')} needs --network or --measure")
    for name in ("threads", "seconds"):
        if getattr(options, name) and not options.measure:
            raise UsageError(f"--{name} needs --measure")
    if options.file == "":
        raise UsageError("the name of the FILE is empty; standard input is -")
    if options.file is None and sys.stdin is not None and sys.stdin.isatty():
        raise UsageError("give a FILE, or lengths on standard input (see padless report --help)")


def _read(options: Namespace) -> Collected:
    from .reading import read_lengths

    with Meter("reading") as meter:
        return read_lengths(
            "-" if options.file is None else options.file,
            format=options.format,
            column=options.column,
            words=options.words,
            progress=meter,
        )


def _network(options: Namespace) -> Network | None:
    """The network that options tell; for `--measure` alone, an LSTM."""
    from .network import Network

    if not options.network and not options.measure:
        return None
    return Network(
        options.network or "lstm",
        options.input_size or _SIZE,
        options.hidden_size or _SIZE,
        num_layers=options.layers or 1,
        bidirectional=options.bidirectional,
        training=options.training,
    )


def _write(report: Report, options: Namespace) -> None:
    if options.html is not None:
        from .page import page

        write(options.html, page(report))
    if isinstance(sys.stdout, TextIOWrapper):
        # A column's name may have letters that it cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    print(json.dumps(report.as_json(), indent=2) if options.json else report.text())


def count(text: str) -> int:
    """An option's text as a whole number from 1."""
    return _up_to(MOST, text)


def threads(text: str) -> int:
    """An option's text as a number of threads."""
    return _up_to(MOST_THREADS, text)


def _up_to(most: int, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text[:11]) <= most:
        raise ArgumentTypeError(f"a whole number from 1 to {most:,}, got {text[:40]!r}")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or len(text) > 40:
        raise ArgumentTypeError(f"a whole number from 0, got {text[:40]!r}")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ArgumentTypeError(f"a number over 0, got {text[:40]!r}")
    return seconds
