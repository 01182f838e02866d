"""The command line: parses arguments, words errors, and calls the subcommands.

Exit codes: 0 done, 1 failed, 2 bad usage.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from .. import __version__
from ..bench.command import add_arguments as add_bench_arguments
from ..draw import command as draw_command
from ..errors import PadlessError, UsageError
from ..report import command as report_command

__all__ = ["main"]

_EXAMPLES = """\
examples:
  padless demo --quick
  padless report lengths.txt
  padless draw 4 6 8 5 4 3 7 8
  padless bench --quick
  padless doctor

See padless COMMAND --help for more. Exit codes: 0 done, 1 failed, 2 bad usage."""
_DEMO_EXAMPLES = """\
examples:
  padless demo --quick --out runs/quick
  padless demo --resume --out runs/quick"""
_BENCH_EXAMPLES = """\
examples:
  padless bench --quick
  padless bench --cell LSTM --mode train --json bench.json"""
_DOCTOR_EXAMPLES = """\
examples:
  padless doctor
  PADLESS_BACKEND=portable padless doctor --json"""
_COMPLETION_EXAMPLES = """\
examples:
  eval "$(padless completion bash)"      # in ~/.bashrc
  eval "$(padless completion zsh)"       # in ~/.zshrc, after compinit
  padless completion fish | source       # in ~/.config/fish/config.fish"""


_OUT_OF_MEMORY = ("can't allocate memory", "Storage size calculation overflowed")  # in torch's RuntimeErrors


class _Formatter(argparse.HelpFormatter):
    """Wraps what a help says, but for texts of several lines, which are laid out by hand."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return text
        return super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def _print_message(self, message: str, file: Any = None) -> None:
        """Print a help or the version; argparse itself ignores that it cannot be written."""
        (file or sys.stderr).write(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code of the command line `arguments` (default: the process's own)."""
    if sys.stdout is None:
        return _fail("cannot write to standard output: it is closed", 1)
    options = argparse.Namespace(command=None)
    try:
        try:
            options = _parser().parse_args(arguments)
            options.run(options)
        finally:
            sys.stdout.flush()  # also what a help or the version has printed before it exits
        return 0
    except UsageError as error:
        return _fail(str(error), 2)
    except KeyboardInterrupt:
        if sys.stdout.isatty():
            print()  # leave the progress bar's line
        hint = f"; go on with: {_resume_command(options)}" if options.command == "demo" else ""
        return _fail(f"interrupted{hint}", 1)
    except BrokenPipeError:
        _discard_output()  # the reader has gone; so do we
        return 1
    except PadlessError as error:
        return _fail(str(error), 1)
    except OSError as error:
        if error.filename is not None:
            return _fail(str(error), 1)
        _discard_output()  # commands name the files that they cannot write, so this is no file
        return _fail(f"cannot write to standard output: {error.strerror or error}", 1)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(text in str(error) for text in _OUT_OF_MEMORY):
            raise
        return _fail("not enough memory for batches or layers of this size", 1)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="padless",
        description="Computes variable-length sequences at the cost of their real rows.",
        epilog=_EXAMPLES,
        formatter_class=_Formatter,
    )
    parser.add_argument("-V", "--version", action="version", version=f"padless {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = _command(
        commands,
        "demo",
        _demo,
        "train on real data without padding, and compare the time with torch",
        "Trains a bidirectional LSTM on the functions of Python's standard library, and compares the time with torch.",
        _DEMO_EXAMPLES,
    )
    demo.add_argument(
        "--quick",
        action="store_true",
        help="use a small part of the data and a smaller model; takes about 20 seconds on an idle machine",
    )
    demo.add_argument(
        "--epochs", type=int, metavar="N", help="total number of epochs (default 4, with --quick 3)"
    )
    demo.add_argument(
        "--resume",
        action="store_true",
        help="continue from the checkpoint in --out, or start from the beginning if there is none; "
        "without this option an existing checkpoint is kept as checkpoint.previous.pt",
    )
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("runs/demo"),
        metavar="DIR",
        help="folder for checkpoint, numbers and picture (default %(default)s)",
    )
    draw = _command(
        commands,
        "draw",
        _draw,
        "draw a batch padded, packed and step by step",
        "Draws one batch: the padded grid, the batch size of each step, and the packed rows in memory order.",
        draw_command.EXAMPLES,
    )
    draw_command.add_arguments(draw)
    bench = _command(
        commands,
        "bench",
        _bench,
        "time padless against torch packed and torch padded",
        "Times padless, torch packed and torch padded alternately on the same batches, after checking that their "
        "results are equal. ONNX Runtime and OpenVINO take part if they are installed.",
        _BENCH_EXAMPLES,
    )
    add_bench_arguments(bench)
    report = _command(
        commands,
        "report",
        _report,
        "count what padding costs the sequences of a file",
        report_command.DESCRIPTION,
        report_command.EXAMPLES,
    )
    report_command.add_arguments(report)
    doctor = _command(
        commands,
        "doctor",
        _doctor,
        "show which backend runs here, and why",
        "Shows the version, the backend and why it was chosen, the instruction set, threads and torch.",
        _DOCTOR_EXAMPLES,
    )
    doctor.add_argument("--json", action="store_true", help="print the same as JSON")
    completion = _command(
        commands,
        "completion",
        _completion,
        "print a script that completes padless in your shell",
        "Prints the script for a shell to load (needs shtab: pip install shtab).",
        _COMPLETION_EXAMPLES,
    )
    completion.add_argument(
        "shell", choices=("bash", "zsh", "fish"), help="the shell to complete in: %(choices)s"
    )
    return parser


def _command(
    commands: Any,
    name: str,
    run: Callable[[argparse.Namespace], None],
    summary: str,
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    """A subcommand that calls `run`; its help ends with the examples."""
    parser = commands.add_parser(
        name, help=summary, description=description, epilog=examples, formatter_class=_Formatter
    )
    parser.set_defaults(run=run)
    return parser


def _demo(options: argparse.Namespace) -> None:
    from ..demo.command import run_demo

    run_demo(out=options.out, quick=options.quick, epochs=options.epochs, resume=options.resume)


def _bench(options: argparse.Namespace) -> None:
    from ..bench.command import run

    run(options)


def _report(options: argparse.Namespace) -> None:
    def measure(*arguments: Any, **named: Any) -> Any:
        from ..bench.policies import measure_policies  # imports torch

        return measure_policies(*arguments, **named)

    report_command.run(options, measure)


def _draw(options: argparse.Namespace) -> None:
    draw_command.run(options)


def _completion(options: argparse.Namespace) -> None:
    from .completion import script

    sys.stdout.write(script(_parser(), options.shell))


def _doctor(options: argparse.Namespace) -> None:
    import torch

    from .. import backends

    facts: dict[str, Any] = {
        "padless": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "backend": backends.active(),
        "available": list(backends.available()),
        "why": backends.why(),
        "instruction_set": backends.instruction_set() or "none of padless's own: no native kernels",
        "bfloat16_products": _bfloat16_products(),
        "float32_products": _float32_products(),
        "threads": torch.get_num_threads(),
        "openmp": torch.backends.openmp.is_available(),
    }
    if options.json:
        print(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        text = ", ".join(value) if isinstance(value, list) else value
        print(f"{name.replace('_', ' '):<{width}}  {text}")


def _bfloat16_products() -> str:
    """How bfloat16 rows are multiplied on the CPU."""
    from ..backends import _kernels

    if _kernels.missing() is not None:
        return "by torch"
    if not _kernels.computes("medium"):
        return f"in float32: {_kernels.isa()} has no products of bfloat16 numbers"
    return f"by {_kernels.isa()}"


def _float32_products() -> str:
    """The precision that torch's switch asks for, as far as there are kernels for it."""
    import torch

    from ..backends import _precision

    return f"precision {_precision.precision_of(torch.float32)}"


def _resume_command(options: argparse.Namespace) -> str:
    words = ["padless", "demo", "--resume", *(["--quick"] if options.quick else [])]
    if options.epochs is not None:
        words += ["--epochs", str(options.epochs)]
    return shlex.join([*words, "--out", str(options.out)])


def _discard_output() -> None:
    """Send standard output to nowhere, so that Python does not fail once more when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> int:
    if sys.stderr is not None:  # where it is closed, `print` would turn to standard output
        print(f"padless: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
