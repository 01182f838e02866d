"""`padless bench`: runs the cases, prints a table, writes JSON and a picture."""

from __future__ import annotations

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..outputs import check_outputs, check_writable, write
from ..report.command import count, threads

__all__ = ["add_arguments", "run"]

_CELLS = ("LSTM", "GRU", "RNN")
_MODES = ("train", "infer")
_LENGTHS = ("short", "stdlib", "lognormal", "uniform", "equal")


def add_arguments(parser: ArgumentParser) -> None:
    """Options of `padless bench`."""
    parser.add_argument(
        "--cell", action="append", choices=_CELLS, help="time only this cell; may be repeated (default: all)"
    )
    parser.add_argument(
        "--mode", action="append", choices=_MODES, help="time only this mode; may be repeated (default: both)"
    )
    parser.add_argument(
        "--shape",
        action="append",
        type=_shape,
        metavar="B,T,H",
        help="time only this shape: sequences, steps, hidden size; may be repeated (default: six shapes; three "
        "with --quick; five with --steps)",
    )
    parser.add_argument(
        "--lengths",
        choices=_LENGTHS,
        default="short",
        help="distribution of the lengths; short: rand**1.5 * (T - 1) + 1; stdlib: tokens in the functions of Python's "
        "standard library; lognormal: median T/4, sigma 0.6; equal: no padding (default short)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float64", "bf16"),
        default="float32",
        help="dtype of rows and weights; float64 only with --steps (default float32)",
    )
    parser.add_argument(
        "--precision",
        choices=("highest", "high", "medium"),
        default="highest",
        help="torch's precision switch for float32 products (default highest)",
    )
    parser.add_argument(
        "--threads",
        type=threads,
        default=1,
        help="number of threads; 1 measures CPU time, more measure wall time (default 1)",
    )
    parser.add_argument("--repeats", type=count, default=9, help="number of rounds per shape (default 9)")
    parser.add_argument(
        "--budget", type=_budget, default=6.0, metavar="SECONDS", help="time budget per shape (default 6)"
    )
    parser.add_argument(
        "--steps",
        action="store_true",
        help="time calls of one to five steps instead, for every type of input",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="time in three rounds, and without --shape and --steps three small shapes",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        nargs="?",
        const="-",
        help="print all numbers as JSON instead of the table, or also write them to FILE",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="also draw the percentage of sgemm against rows per step (needs Matplotlib)",
    )


def run(options: Namespace) -> None:
    """Run the benchmark and print its table.

    Raises:
        DisagreementError: contestants computed different things; nothing was timed at that shape.
        UsageError: options that make no sense, or Matplotlib missing for `--plot`.
        PadlessError: a file cannot be written.
    """
    _check(options)
    import torch

    from .facts import facts
    from .table import summary
    from .timing import sgemm_flops_per_second

    quiet = options.json == "-"
    say = (lambda *_: None) if quiet else lambda *words: print(*words, flush=True)
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    try:
        rates = sgemm_flops_per_second()
        report: dict[str, Any] = {
            **facts(options.threads),
            "lengths": options.lengths,
            "dtype": options.dtype,
            "precision": options.precision,
            "sgemm_flops_per_second": rates,
            "results": [],
        }
        say(
            f"{report['machine']}; sgemm: "
            + ", ".join(f"{name} {rate / 1e9:.0f} GFLOP/s" for name, rate in rates.items())
        )
        if options.steps:
            least = f"the least of up to {_rounds(options)} round(s)"
            say(f"{options.threads} thread(s), {report['clock']} time, {least}")
            report["results"] = _time_steps(options, say)
        else:
            say(f"{options.threads} thread(s), {report['clock']} time, medians; lengths: {options.lengths}")
            if _is_highest_here(options.precision):
                say(f'this machine computes precision {options.precision!r} in float32, as "highest"')
            report["results"] = _time_batches(options, rates, say)
    finally:
        torch.set_num_threads(before)
    text = json.dumps(report, indent=1)
    if quiet:
        print(text)
    elif options.json:
        write(Path(options.json), text + "\n")
    if not options.steps:
        say(summary(report["results"]))
    if options.plot is not None:
        from .plot import save_plot

        save_plot(report, options.plot)


def _check(options: Namespace) -> None:
    """Raise before anything is timed where options make no sense or a file cannot be written."""
    if options.dtype == "bf16" and options.precision != "highest":
        raise UsageError("--precision is for float32 products; with --dtype bf16 leave it out")
    if options.steps:
        _refuse_with_steps(options)
    elif options.dtype == "float64":
        raise UsageError("--dtype float64 goes with --steps only")
    if options.plot is not None:
        _check_plot(options.plot)
    outputs = [Path(options.json) if options.json not in (None, "-") else None, options.plot]
    check_outputs(outputs, None)
    for path in outputs:
        if path is not None:
            check_writable(path)


def _time_batches(
    options: Namespace, rates: dict[str, float], say: Callable[..., None]
) -> list[dict[str, Any]]:
    from . import table

    entries = []
    for mode in options.mode or _MODES:
        for cell in options.cell or _CELLS:
            results = [_time(cell, mode, shape, options, rates) for shape in _shapes(options)]
            entries += results
            say(table.render(results))
    return entries


def _time_steps(options: Namespace, say: Callable[..., None]) -> list[dict[str, Any]]:
    import torch

    from .cases import Shape
    from .steps import STEP_SHAPES, render_steps, time_steps

    dtype = torch.bfloat16 if options.dtype == "bf16" else getattr(torch, options.dtype)
    shapes = [Shape(*shape) for shape in options.shape] if options.shape else STEP_SHAPES
    entries = []
    for mode in options.mode or _MODES:
        for cell in options.cell or _CELLS:
            results = [
                time_steps(
                    cell, shape, train=mode == "train", dtype=dtype, repeats=_rounds(options),
                    budget_seconds=options.budget,
                )
                for shape in shapes
            ]  # fmt: skip
            entries += results
            say(render_steps(results))
    return entries


def _is_highest_here(precision: Any) -> bool:
    """Whether torch's switch at this precision changes nothing on this machine."""
    from ..backends import _kernels

    return precision != "highest" and (_kernels.missing() is not None or not _kernels.computes(precision))


def _refuse_with_steps(options: Namespace) -> None:
    """Raise UsageError where an option would do nothing."""
    for name, default in (
        ("lengths", "short"),
        ("precision", "highest"),
        ("plot", None),
    ):
        if getattr(options, name) != default:
            raise UsageError(f"--{name} has no effect on --steps; leave it out")


def _rounds(options: Namespace) -> int:
    return 3 if options.quick else options.repeats


def _shapes(options: Namespace) -> Any:
    from .cases import SHAPES, Shape

    if options.shape:
        return [Shape(*shape) for shape in options.shape]
    return (SHAPES[0], SHAPES[3], SHAPES[4]) if options.quick else SHAPES


def _time(cell: str, mode: str, shape: Any, options: Namespace, rates: dict[str, float]) -> dict[str, Any]:
    """One entry of the report; the first contestant is padless's fastest backend, ratios are to its median."""
    from .cases import make_case, make_low_case
    from .timing import SGEMM, check_equal, measure, sgemm_flops

    train, lengths = mode == "train", options.lengths
    if options.dtype == "float32" and options.precision == "highest":
        case = make_case(cell, shape, train=train, lengths=lengths)
    else:
        case = make_low_case(
            cell, shape, train=train, lengths=lengths, dtype=options.dtype, precision=options.precision
        )
    check_equal(case)
    fastest = max(rates, key=lambda name: rates[name])
    timings = measure(case, repeats=_rounds(options), budget_seconds=options.budget, library=fastest)
    product = timings.pop(SGEMM)
    rate = sgemm_flops() / product.median_seconds
    ours, *others = timings
    return {
        "cell": case.cell,
        "mode": mode,
        "shape": list(case.shape),
        "rows": case.rows,
        "fill": round(case.fill, 4),
        "sgemm_flops_per_second": rate,
        "contestants": {
            name: {**t._asdict(), "percent_of_sgemm": round(100 * case.flops / t.median_seconds / rate, 1)}
            for name, t in timings.items()
        },
        "ratios": {
            name: round(timings[name].median_seconds / timings[ours].median_seconds, 3) for name in others
        },
    }


def _shape(text: str) -> tuple[int, int, int]:
    """`"64,100,128"` as numbers."""
    try:
        batch, steps, width = map(count, text.split(","))
    except (ArgumentTypeError, ValueError):
        raise ArgumentTypeError(
            f"B,T,H are three whole numbers from 1 to 2,147,483,647, got {text[:40]!r}"
        ) from None
    return batch, steps, width


def _budget(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ArgumentTypeError(f"a number of seconds from 0, got {text[:40]!r}")
    return seconds


def _check_plot(path: Path) -> None:
    """Raise UsageError if Matplotlib is missing, or cannot write files of this kind."""
    if find_spec("matplotlib") is None:
        raise UsageError("--plot needs Matplotlib: pip install matplotlib")
    from matplotlib.backend_bases import FigureCanvasBase

    kinds = sorted(FigureCanvasBase.get_supported_filetypes())
    if path.suffix[1:].lower() not in kinds:
        raise UsageError(f"--plot writes files that end in .{', .'.join(kinds)}; got {path}")
