"""A small run of the demo in a process of its own, so that it can really be killed.

`python kit.py TASK ...` works on some modules of the standard library with a tiny model. The tasks:
`train OUT WHEN` trains, through the functions below the command line; `demo ...` is the whole command.
"""

from __future__ import annotations

import builtins
import functools
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

EPOCHS = 4
SETTINGS: dict[str, Any] = {"batch_size": 16, "embedding_size": 8, "hidden_size": 8}
SHORTENED: dict[str, Any] = {**SETTINGS, "functions": 96, "batch_size": 8}
STEPS = 12  # an epoch of the shortened run
MODULES = ("argparse.py", "inspect.py", "typing.py", "zipfile.py", "zipfile/__init__.py")


def small_library() -> tuple[Path, list[Path]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    return root, [root / name for name in MODULES if (root / name).exists()]


def small_data():
    from padless.demo.data import read_functions, to_data

    root, files = small_library()
    functions = [function for function in read_functions(root, files) if len(function.words) < 200]
    return to_data(functions, class_minimum=20)


def weights(path: Path) -> dict[str, Any]:
    from padless.demo.train import read_checkpoint

    return read_checkpoint(path)["model"]


def start(task: str, *arguments: object, before: Callable[[], None] | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, __file__, task, *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=before,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, error = process.communicate(timeout=200)
    return process.returncode, out, error


def main(task: str, *arguments: str) -> int:
    return _demo(arguments) if task == "demo" else _train(Path(arguments[0]), arguments[1])


def _train(out: Path, when: str) -> int:
    import padless.demo.train as training

    path, data = out / "checkpoint.pt", small_data()
    run = (
        training.resume_run(path, data)
        if path.exists()
        else training.new_run(training.Settings(**SHORTENED), data)
    )
    print("resumed at", len(run.epochs), flush=True)
    _arrange_death(when)

    def on_step(epoch: int, done: int, steps: int) -> None:
        print("step", epoch, done, flush=True)
        time.sleep(0.01)  # time to be killed in

    training.train(run, data, epochs=EPOCHS, path=path, on_step=on_step)
    return 0


def _demo(arguments: tuple[str, ...]) -> int:
    import padless.demo.command as command
    import padless.demo.train as training
    from padless.cli import main

    training.Settings = functools.partial(training.Settings, **SETTINGS)  # type: ignore[misc]
    command.stdlib_files = small_library
    command.to_data = functools.partial(command.to_data, class_minimum=20)
    command.COMPARED_STEPS = 2
    command.QUICK_SETTINGS = {"functions": 96}
    return main(["demo", *arguments])


def _arrange_death(when: str) -> None:
    """`never`, or a kill -9 of this process at the n-th `write n` (half done), `fsync n` or `replace n`."""
    if when == "never":
        return
    name, number = when.split()
    left = int(number)

    def is_due() -> bool:
        nonlocal left
        left -= 1
        return left == 0

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if name == "write":
        from padless import outputs

        def half_opened(path: Path, mode: str) -> Any:
            file = builtins.open(path, mode)  # noqa: SIM115 - the caller closes it
            if is_due():
                whole = file.write

                def half(content: memoryview) -> None:
                    whole(content[: len(content) // 2])
                    file.flush()
                    die()

                file.write = half  # type: ignore[method-assign]
            return file

        outputs.open = half_opened  # type: ignore[attr-defined]
        return
    original = getattr(os, name)

    def deadly(*arguments: object) -> object:
        if is_due():
            die()
        return original(*arguments)

    setattr(os, name, deadly)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
