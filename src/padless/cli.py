"""The command line; parses and words errors, and leaves the work to other rooms.

Exit codes: 0 done, 1 failed, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from . import __version__
from .bench.command import add_arguments as add_bench_arguments
from .errors import PadlessError, UsageError
from .report import command as report_command

__all__ = ["main"]


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command line `arguments` (default: the process's own)."""
    options = argparse.Namespace(command=None)
    try:
        options = _parser().parse_args(arguments)
        options.run(options)
        sys.stdout.flush()
        return 0
    except UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print()  # leave the progress bar's line
        hint = f"; go on with: {_resume_command(options)}" if options.command == "demo" else ""
        return _fail(f"interrupted{hint}", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has gone; so do we
        return 1
    except (PadlessError, OSError) as error:
        return _fail(str(error), 1)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="padless", description="Variable-length sequences at the cost of their real rows.")
    parser.add_argument("--version", action="version", version=f"padless {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="train on real data without padding, and compare with torch",
        description="Trains a bidirectional LSTM on the functions of Python's own library, and compares with torch.",
        epilog="example: padless demo --quick --out runs/quick",
    )
    demo.add_argument("--quick", action="store_true", help="a small part of the data, under 40 seconds")
    demo.add_argument("--epochs", type=int, metavar="N", help="epochs to train in all (4; with --quick 3)")
    demo.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint in --out (without it, one is kept as checkpoint.previous.pt)",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("runs/demo"), metavar="DIR", help="folder (%(default)s)"
    )
    demo.set_defaults(run=_demo)
    bench = commands.add_parser(
        "bench",
        help="time padless against torch packed and torch padded",
        description="Results are checked equal before they are timed, by turns, on one batch after another.",
        epilog="example: padless bench --cell LSTM --mode train --json bench.json",
    )
    add_bench_arguments(bench)
    bench.set_defaults(run=_bench)
    report = commands.add_parser(
        "report",
        help="count what padding costs the sequences of a file",
        description=report_command.DESCRIPTION,
        epilog=report_command.EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    report_command.add_arguments(report)
    report.set_defaults(run=_report)
    doctor = commands.add_parser(
        "doctor", help="what runs here, and why", epilog="example: padless doctor --json"
    )
    doctor.add_argument("--json", action="store_true", help="the same as JSON")
    doctor.set_defaults(run=_doctor)
    return parser


def _demo(options: argparse.Namespace) -> None:
    from .demo.command import run_demo

    run_demo(out=options.out, quick=options.quick, epochs=options.epochs, resume=options.resume)


def _bench(options: argparse.Namespace) -> None:
    from .bench.command import run

    run(options)


def _report(options: argparse.Namespace) -> None:
    def measure(*arguments: Any, **named: Any) -> Any:
        from .bench.policies import measure_policies  # imports torch

        return measure_policies(*arguments, **named)

    report_command.run(options, measure)


def _doctor(options: argparse.Namespace) -> None:
    import torch

    from . import backends

    facts: dict[str, Any] = {
        "padless": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "backend": backends.active(),
        "available": list(backends.available()),
        "why": backends.why(),
        "instruction_set": backends.instruction_set() or "none of padless's own: no native kernels",
        "threads": torch.get_num_threads(),
        "openmp": torch.backends.openmp.is_available(),
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else value
        print(f"{name.replace('_', ' '):<16} {text}")


def _resume_command(options: argparse.Namespace) -> str:
    words = ["padless", "demo", "--resume", *(["--quick"] if options.quick else [])]
    if options.epochs is not None:
        words += ["--epochs", str(options.epochs)]
    return shlex.join([*words, "--out", str(options.out)])


def _fail(message: str, code: int) -> int:
    print(f"padless: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
