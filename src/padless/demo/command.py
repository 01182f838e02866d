"""`padless demo` from beginning to end: data, training, accounting, comparison, picture, numbers."""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import PadlessError, UsageError
from .data import read_functions, stdlib_files, to_data

__all__ = ["run_demo"]

EPOCHS, QUICK_EPOCHS = 4, 2
QUICK_FUNCTIONS = 3_000
COMPARED_STEPS, QUICK_COMPARED_STEPS = 16, 5


def run_demo(*, out: Path, quick: bool = False, epochs: int | None = None, resume: bool = False) -> None:
    """Train, account, compare; leaves `checkpoint.pt`, `demo.json` and `batch.png` in `out`."""
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs must be at least 1, got {epochs}")
    _make_writable(out)
    print("padless demo: a bidirectional LSTM reads a function and says which package it comes from\n")

    begin = time.perf_counter()
    root, files = stdlib_files()
    functions = read_functions(root, files, progress=lambda done: _bar("reading", done, len(files)))
    data = to_data(functions)
    tokens = sum(map(len, data.sequences))
    print(
        f"data        {len(data.sequences):,} functions of {len(data.classes)} packages of Python "
        f"{platform.python_version()}'s own library\n            {min(map(len, data.sequences))} to "
        f"{max(map(len, data.sequences)):,} tokens long, {tokens:,} in all ({time.perf_counter() - begin:.1f} s)"
    )

    from ..report import waste, waste_table
    from .compare import compare  # torch loads here
    from .train import Settings, epoch_batches, new_run, resume_run, train

    checkpoint = out / "checkpoint.pt"
    wanted = Settings(functions=QUICK_FUNCTIONS if quick else None)
    if resume and checkpoint.exists():
        run = resume_run(checkpoint, data)
        if quick and run.settings != wanted:
            raise PadlessError(f"{checkpoint} is of a run without --quick; resume it without --quick")
        print(f"resumed     {checkpoint}, {len(run.epochs)} epochs done")
    else:
        if resume:
            print(f"resumed     no checkpoint in {out} yet: from the beginning")
        run = new_run(wanted, data)
    quick = run.settings == Settings(functions=QUICK_FUNCTIONS)
    epochs = epochs or (QUICK_EPOCHS if quick else EPOCHS)

    print(f"\ntraining    {run.settings.threads} thread, checkpoint each epoch: {checkpoint}")
    majority = data.majority_accuracy
    for number, epoch in enumerate(run.epochs, 1):
        _tell(number, epoch, majority)
    train(
        run,
        data,
        epochs=epochs,
        path=checkpoint,
        on_step=lambda number, done, steps: _bar(f"epoch {number}", done, steps),
        on_epoch=lambda number, epoch: _tell(number, epoch, majority),
    )

    batches = epoch_batches(run.settings, data, len(run.epochs))
    numbers = waste(
        [len(data.sequences[i]) for batch in batches for i in batch], batch_size=run.settings.batch_size
    )
    flops = numbers.flops(
        "lstm", run.settings.embedding_size, run.settings.hidden_size, bidirectional=True, training=True
    )
    print("\naccounting  of one epoch's batches\n" + waste_table({"random": numbers}))
    print(
        f"multiplications and additions of the LSTM: {flops.needed / 1e9:,.0f} billion needed, "
        f"{flops.padded / 1e9:,.0f} billion padded, {flops.saved / 1e9:,.0f} billion saved"
    )

    compared = batches[: QUICK_COMPARED_STEPS if quick else COMPARED_STEPS]
    print(f"\ncomparison  the next {len(compared)} batches that training would take, none left out, by turns")
    result = compare(
        run.reader,
        compared,
        data,
        learning_rate=run.settings.learning_rate,
        on_step=lambda done, steps: _bar("comparing", done, steps),
    )
    for name, seconds in result.seconds.items():
        print(f"  {name:<13} {1e3 * seconds / result.steps:8.1f} ms a step  {result.ratio(name):5.1f}x")
    print(f"  largest difference of losses {result.largest_loss_difference:.1e}")

    picture = _picture([len(data.sequences[i]) for i in compared[0]], out / "batch.png")
    report: dict[str, Any] = {
        "functions": len(data.sequences),
        "classes": len(data.classes),
        "tokens": tokens,
        "settings": asdict(run.settings),
        "majority_accuracy": majority,
        "epochs": [asdict(epoch) for epoch in run.epochs],
        "rows": numbers.rows,
        "cells": numbers.cells,
        "wasted_percent": numbers.wasted_percent,
        "flops_needed": flops.needed,
        "flops_padded": flops.padded,
        "compared_steps": result.steps,
        "seconds_a_step": {name: seconds / result.steps for name, seconds in result.seconds.items()},
        "ratios": {name: result.ratio(name) for name in result.seconds},
        "largest_loss_difference": result.largest_loss_difference,
    }
    _write(out / "demo.json", json.dumps(report, indent=2) + "\n")
    print(f"\npicture     {picture}\nnumbers     {out / 'demo.json'}\n")
    print(
        f"padless is {result.ratio('torch packed'):.1f}x faster than torch packed "
        f"and {result.ratio('torch padded'):.1f}x faster than torch padded"
    )


def _make_writable(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".padless-writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PadlessError(f"cannot write to {out}: {error.strerror or error}") from error


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _picture(lengths: list[int], path: Path) -> str:
    from ..report.picture import save_picture

    try:
        save_picture(lengths, path)
    except PadlessError as error:
        return f"none: {error}"
    return str(path)


def _tell(number: int, epoch: Any, majority: float) -> None:
    print(
        f"  epoch {number}  loss {epoch.loss:.3f}  held out {100 * epoch.accuracy:.1f} % right "
        f"(majority class {100 * majority:.1f} %)  {epoch.seconds:.1f} s",
        flush=True,
    )


def _bar(what: str, done: int, total: int) -> None:
    """One line that grows in a terminal; nothing where the output is a file or a pipe."""
    if not sys.stdout.isatty():
        return
    filled = 30 * done // total
    line = f"\r  {what:<10} {'#' * filled}{'.' * (30 - filled)} {done}/{total}"
    sys.stdout.write(line if done < total else "\r" + " " * len(line) + "\r")
    sys.stdout.flush()
