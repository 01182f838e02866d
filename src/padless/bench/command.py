"""`padless bench`: runs the cases, prints a table, writes JSON."""

from __future__ import annotations

import json
import platform
from argparse import ArgumentParser, Namespace
from math import exp, log
from pathlib import Path
from typing import Any

from ..errors import UsageError

__all__ = ["add_arguments", "run"]


def add_arguments(parser: ArgumentParser) -> None:
    """Options of `padless bench`."""
    parser.add_argument("--cell", action="append", choices=("LSTM", "GRU", "RNN"), help="only this cell (may repeat)")
    parser.add_argument("--mode", action="append", choices=("train", "infer"), help="only this (may repeat)")
    parser.add_argument("--threads", type=int, default=1, help="threads; 1 measures CPU time, more wall time (1)")
    parser.add_argument("--repeats", type=int, default=9, help="turns at each shape (9)")
    parser.add_argument("--budget", type=float, default=6.0, metavar="SECONDS", help="time for a shape (6)")
    parser.add_argument("--quick", action="store_true", help="three small shapes, three turns")
    parser.add_argument("--json", metavar="FILE", help="also write every number to FILE ('-' for standard output)")


def run(options: Namespace) -> int:
    """Run the benchmark and print its table; 0, or 1 where contestants disagree."""
    import torch

    from .. import backends
    from .cases import CELLS, SHAPES, make_case
    from .timing import check_equal, measure, sgemm_flops_per_second

    if options.threads < 1 or options.repeats < 1:
        raise UsageError("--threads and --repeats take a whole number from 1")
    before = torch.get_num_threads()
    torch.set_num_threads(options.threads)
    quiet = options.json == "-"
    say = (lambda *_: None) if quiet else lambda *words: print(*words, flush=True)
    try:
        sgemm = sgemm_flops_per_second()
        say(
            f"sgemm of this machine: {sgemm['best'] / 1e9:.0f} GFLOP/s "
            f"(MKL {sgemm['mkl'] / 1e9:.0f}, oneDNN {sgemm['onednn'] / 1e9:.0f}); "
            f"{options.threads} thread(s), {'CPU' if options.threads == 1 else 'wall'} time, medians"
        )
        results = []
        shapes = (SHAPES[0], SHAPES[3], SHAPES[4]) if options.quick else SHAPES
        for mode in options.mode or ("train", "infer"):
            for cell in options.cell or CELLS:
                rows = []
                for shape in shapes:
                    case = make_case(cell, shape, train=mode == "train")
                    check_equal(case)
                    timings = measure(
                        case, repeats=3 if options.quick else options.repeats, budget_seconds=options.budget
                    )
                    rows.append(_result(case, timings, sgemm["best"]))
                results += rows
                say(_table(cell, mode, rows))
    finally:
        torch.set_num_threads(before)
    if options.json:
        report = {
            "torch": torch.__version__,
            "machine": _machine(),
            "threads": options.threads,
            "backend": backends.active(),
            "commit": _commit(),
            "sgemm_flops_per_second": sgemm,
            "results": results,
        }
        text = json.dumps(report, indent=1)
        if quiet:
            print(text)
        else:
            Path(options.json).write_text(text + "\n")
    return 0


def _result(case: Any, timings: dict[str, Any], sgemm: float) -> dict[str, Any]:
    return {
        "cell": case.cell,
        "mode": "train" if case.train else "infer",
        "shape": list(case.shape),
        "rows": case.rows,
        "fill": round(case.fill, 4),
        "contestants": {
            name: {
                "median_seconds": t.median_seconds,
                "minimum_seconds": t.minimum_seconds,
                "percent_of_sgemm": round(100 * case.flops / t.median_seconds / sgemm, 1),
            }
            for name, t in timings.items()
        },
    }


def _table(cell: str, mode: str, results: list[dict[str, Any]]) -> str:
    """One line a shape: milliseconds of each contestant, and how often torch's time holds padless's best."""
    names = list(results[0]["contestants"])
    ours = [name for name in names if name.startswith("padless")]
    head = f"{'B,T,H':>12} {'fill':>5} " + " ".join(f"{name + ' ms':>20}" for name in names)
    for name in ours:
        short = name.removeprefix("padless ")
        head += f" {short + ': % sgemm':>19} {'x packed':>9} {'x padded':>9}"
    lines = [f"\n{cell} {mode}", head]
    for result in results:
        timed = result["contestants"]
        line = f"{','.join(map(str, result['shape'])):>12} {result['fill']:5.2f} "
        line += " ".join(f"{1e3 * timed[name]['median_seconds']:20.2f}" for name in names)
        for name in ours:
            line += (
                f" {timed[name]['percent_of_sgemm']:19.0f} {_ratio(timed, 'torch packed', name):9.2f}"
                f" {_ratio(timed, 'torch padded', name):9.2f}"
            )
        lines.append(line)
    for name in ours:
        means = [
            exp(sum(log(_ratio(r["contestants"], other, name)) for r in results) / len(results))
            for other in ("torch packed", "torch padded")
        ]
        lines.append(
            f"{name}: {means[0]:.2f}x torch packed, {means[1]:.2f}x torch padded in the geometric mean"
        )
    return "\n".join(lines)


def _ratio(timed: dict[str, Any], other: str, ours: str) -> float:
    return timed[other]["median_seconds"] / timed[ours]["median_seconds"]


def _machine() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the source tree that this package runs from, if it is one."""
    import subprocess

    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
