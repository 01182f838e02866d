"""`padless demo`: data, training, accounting, comparison, picture and numbers."""

from __future__ import annotations

import json
import os
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import PadlessError, UsageError
from ..outputs import write
from ..progress import bar
from ..report import Count, Waste, waste, waste_table
from .data import Data, read_functions, stdlib_files, to_data

if TYPE_CHECKING:
    from .compare import Comparison
    from .train import Epoch, Run

__all__ = ["run_demo"]

EPOCHS, QUICK_EPOCHS = 4, 3
QUICK_SETTINGS = {"functions": 4_000, "hidden_size": 64, "learning_rate": 5e-3}
COMPARED_STEPS, QUICK_COMPARED_STEPS = 16, 5


def run_demo(*, out: Path, quick: bool = False, epochs: int | None = None, resume: bool = False) -> None:
    """Train, account, compare; leaves `checkpoint.pt`, `demo.json` and `batch.png` in `out`.

    A checkpoint that is there and is not to be resumed is kept as `checkpoint.previous.pt`.

    Raises:
        UsageError: `epochs` is below 1.
        PadlessError: `out` cannot be written, or its checkpoint cannot be resumed.
    """
    if epochs is not None and epochs < 1:
        raise UsageError(f"--epochs must be at least 1, got {epochs}")
    checkpoint = out / "checkpoint.pt"
    _create_folder(out)
    _say("padless demo: a bidirectional LSTM reads a function and says which package it comes from\n")
    if not resume:
        _keep(checkpoint)  # at once: whoever interrupts from now on and resumes, resumes this run

    data = _read()
    run = _begin(checkpoint, data, quick=quick, resume=resume)
    quick = run.settings.functions is not None
    _train(run, data, epochs or (QUICK_EPOCHS if quick else EPOCHS), checkpoint)
    numbers, flops = _account(run, data)
    result, lengths = _compare(run, data, QUICK_COMPARED_STEPS if quick else COMPARED_STEPS)

    picture = _picture(lengths, out / "batch.png")
    report = _report(run, data, numbers, flops, result)
    write(out / "demo.json", json.dumps(report, indent=2) + "\n")
    _say(f"\npicture     {picture}\nnumbers     {out / 'demo.json'}\n")
    _say(
        f"torch packed takes {result.ratio('torch packed'):.1f} times as long as padless, "
        f"torch padded {result.ratio('torch padded'):.1f} times"
    )


def _read() -> Data:
    begin = time.perf_counter()
    root, files = stdlib_files()
    data = to_data(read_functions(root, files, progress=lambda done: bar("reading", done, len(files))))
    lengths = [len(sequence) for sequence in data.sequences]
    _say(
        f"data        {len(lengths):,} functions of {len(data.classes)} packages of Python "
        f"{platform.python_version()}'s own library\n            {min(lengths)} to {max(lengths):,} tokens long, "
        f"{sum(lengths):,} in all ({time.perf_counter() - begin:.1f} s)"
    )
    return data


def _begin(checkpoint: Path, data: Data, *, quick: bool, resume: bool) -> Run:
    from .train import Settings, new_run, resume_run  # torch loads here

    settings = Settings(**QUICK_SETTINGS) if quick else Settings()
    if not resume or not checkpoint.exists():
        if resume:
            _say(f"resumed     no checkpoint in {checkpoint.parent} yet: from the beginning")
        return new_run(settings, data)
    run = resume_run(checkpoint, data)
    if quick and run.settings.functions is None:
        raise PadlessError(f"{checkpoint} is of a run without --quick; resume it without --quick")
    _say(f"resumed     {checkpoint}, epochs done: {len(run.epochs)}")
    return run


def _train(run: Run, data: Data, epochs: int, checkpoint: Path) -> None:
    from .train import train

    threads = run.settings.threads
    _say(
        f"\ntraining    on {threads} thread{'' if threads == 1 else 's'}; checkpoint after each epoch: {checkpoint}"
    )
    for number, epoch in enumerate(run.epochs, 1):
        _tell(number, epoch, data.majority_accuracy)
    train(
        run,
        data,
        epochs=epochs,
        path=checkpoint,
        on_step=lambda number, done, steps: bar(f"epoch {number}", done, steps),
        on_epoch=lambda number, epoch: _tell(number, epoch, data.majority_accuracy),
    )


def _tell(number: int, epoch: Epoch, majority: float) -> None:
    _say(
        f"  epoch {number}  loss {epoch.loss:.3f}  held out {100 * epoch.accuracy:.1f} % right "
        f"(majority class {100 * majority:.1f} %)  {epoch.seconds:.1f} s"
    )


def _account(run: Run, data: Data) -> tuple[Waste, Count]:
    """What the batches of the next epoch need, and what padding them would cost."""
    from .train import epoch_batches

    settings = run.settings
    batches = epoch_batches(settings, data, len(run.epochs))
    numbers = waste(
        [len(data.sequences[i]) for batch in batches for i in batch], batch_size=settings.batch_size
    )
    flops = numbers.flops(
        "lstm", settings.embedding_size, settings.hidden_size, bidirectional=True, training=True
    )
    _say("\naccounting  of one epoch's batches\n" + waste_table({"random": numbers}))
    _say(
        f"multiplications and additions of the LSTM: {flops.needed / 1e9:,.0f} billion needed, "
        f"{flops.padded / 1e9:,.0f} billion padded, {flops.saved / 1e9:,.0f} billion saved"
    )
    return numbers, flops


def _compare(run: Run, data: Data, steps: int) -> tuple[Comparison, list[int]]:
    """The comparison on the next batches that training would take, and the lengths in the first of them."""
    from .compare import compare
    from .train import epoch_batches

    settings = run.settings
    batches = epoch_batches(settings, data, len(run.epochs))[:steps]
    _say(
        f"\ncomparison  the next {len(batches)} batches that training would take, none left out, alternating; "
        f"threads: {settings.threads}"
    )
    result = compare(
        run.reader,
        batches,
        data,
        learning_rate=settings.learning_rate,
        on_step=lambda done, steps: bar("comparing", done, steps),
    )
    for name, seconds in result.seconds.items():
        _say(f"  {name:<13} {1e3 * seconds / result.steps:8.1f} ms per step  {result.ratio(name):5.1f}x")
    _say(f"  largest difference of losses {result.largest_loss_difference:.1e}")
    return result, [len(data.sequences[i]) for i in batches[0]]


def _report(run: Run, data: Data, numbers: Waste, flops: Count, result: Comparison) -> dict[str, Any]:
    return {
        "functions": len(data.sequences),
        "classes": len(data.classes),
        "tokens": sum(map(len, data.sequences)),
        "settings": asdict(run.settings),
        "majority_accuracy": data.majority_accuracy,
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


def _create_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe = out / ".padless-writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise PadlessError(f"cannot write to {out}: {error.strerror or error}") from error


def _keep(checkpoint: Path) -> None:
    """Move a checkpoint of an earlier run out of the way, and say so."""
    if checkpoint.exists():
        previous = checkpoint.with_name("checkpoint.previous.pt")
        os.replace(checkpoint, previous)
        _say(f"kept        the checkpoint of an earlier run as {previous}")


def _picture(lengths: list[int], path: Path) -> str:
    """The path of the picture, or why there is none; the demo goes on without it."""
    from ..draw.picture import save_picture

    try:
        save_picture(lengths, path)
    except PadlessError as error:
        return f"none: {error}"
    return str(path)


def _say(text: str) -> None:
    print(text, flush=True)
