"""Trains the model with a checkpoint per epoch; a killed run resumes with bit-identical results."""

from __future__ import annotations

import io
import math
import os
import platform
import random
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..backends import active, instruction_set
from ..errors import PadlessError
from ..options import whole
from ..outputs import replace
from .data import Data
from .model import Reader

__all__ = [
    "Epoch",
    "Run",
    "Settings",
    "epoch_batches",
    "loss_of",
    "new_run",
    "read_checkpoint",
    "resume_run",
    "train",
]

_FORMAT = 2


@dataclass(frozen=True)
class Settings:
    """Everything that determines the result of a run, besides the data and the number of epochs."""

    functions: int | None = None  # number of training functions; None: all
    batch_size: int = 64
    embedding_size: int = 64
    hidden_size: int = 128
    learning_rate: float = 3e-3
    seed: int = 0
    threads: int = 1  # sums are split over threads, so exact results depend on their number

    def __post_init__(self) -> None:
        if self.functions is not None:
            whole("functions", self.functions, 1)
        for name in ("batch_size", "embedding_size", "hidden_size", "threads"):
            whole(name, getattr(self, name), 1)
        whole("seed", self.seed, 0)
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be a number over 0, got {self.learning_rate!r}")


@dataclass(frozen=True)
class Epoch:
    """Results of one epoch."""

    loss: float  # mean over the training functions
    accuracy: float  # on the held-out functions, 0 to 1
    seconds: float

    def __post_init__(self) -> None:
        for number in (self.loss, self.accuracy, self.seconds):
            if not isinstance(number, (int, float)):
                raise TypeError(f"{number!r} is not a number")


@dataclass
class Run:
    """A model in training: the contents of a checkpoint."""

    settings: Settings
    fingerprint: str
    reader: Reader
    optimizer: torch.optim.Optimizer
    epochs: list[Epoch] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write the checkpoint atomically: `path` holds a complete one even after a kill or a power cut.

        Raises:
            PadlessError: the file cannot be written; the previous file at `path` is kept.
        """
        state = {
            "format": _FORMAT,
            "settings": asdict(self.settings),
            "fingerprint": self.fingerprint,
            "software": _software(),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "model": self.reader.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
        }
        content = io.BytesIO()  # in memory first: on a full disk torch.save raises other errors
        torch.save(state, content)
        try:
            replace(path, content.getbuffer())
            _sync_folder(path.parent)
        except OSError as error:
            raise PadlessError(f"cannot write {path}: {error.strerror or error}") from error


def new_run(settings: Settings, data: Data) -> Run:
    """A new run; its weights follow from `settings.seed`."""
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    reader = Reader(
        data.vocabulary_size,
        len(data.classes),
        embedding_size=settings.embedding_size,
        hidden_size=settings.hidden_size,
    )
    return Run(settings, data.fingerprint, reader, _optimizer(reader, settings))


def resume_run(path: Path, data: Data) -> Run:
    """The run saved in the checkpoint at `path`.

    Raises:
        PadlessError: the file is not a complete checkpoint, or comes from other data or software, with which
            the same steps would not give bit-identical results.
    """
    state = read_checkpoint(path)
    here = _software()
    for name in ("torch", "backend", "instruction set"):
        there = state["software"].get(name)
        if there != here[name]:
            raise PadlessError(
                f"{path} was trained with {name} {there}, but here it is {here[name]}, so the result would "
                "differ; start again without --resume"
            )
    if state["fingerprint"] != data.fingerprint:
        raise PadlessError(
            f"{path} was trained on the library of Python {state['software'].get('python')}, but that of Python "
            f"{here['python']} here differs; start again without --resume"
        )
    try:
        run = new_run(Settings(**state["settings"]), data)
        run.reader.load_state_dict(state["model"])
        run.optimizer.load_state_dict(state["optimizer"])
        run.epochs.extend(Epoch(**epoch) for epoch in state["epochs"])
        torch.set_rng_state(state["random"])
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PadlessError(
            f"{path} does not fit this version of the demo; start again without --resume"
        ) from error
    return run


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, after checking that it is one; executes no code from the file."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PadlessError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            damaged = file.testzip()  # torch.load compares no checksums
        if damaged is not None:
            raise zipfile.BadZipFile(damaged)
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # for damaged bytes the unpickler raises any kind of error
        raise PadlessError(f"{path} is not a complete checkpoint; start again without --resume") from error
    needed = {"settings", "fingerprint", "software", "epochs", "model", "optimizer", "random"}
    if (
        not isinstance(state, dict)
        or state.get("format") != _FORMAT
        or not needed <= state.keys()
        or not isinstance(state["software"], dict)
    ):
        raise PadlessError(f"{path} is not a checkpoint of this demo; start again without --resume")
    return state


def train(
    run: Run,
    data: Data,
    *,
    epochs: int,
    path: Path,
    on_step: Callable[[int, int, int], None] = lambda epoch, done, steps: None,
    on_epoch: Callable[[int, Epoch], None] = lambda number, epoch: None,
) -> None:
    """Train until `run` has `epochs` epochs, and save it to `path` at the start of a new run and after each epoch."""
    tensors = [torch.tensor(sequence) for sequence in data.sequences]
    labels = torch.tensor(data.labels)
    if not run.epochs:
        run.save(path)
    while len(run.epochs) < epochs:
        number, begin, total = len(run.epochs), time.perf_counter(), 0.0
        batches = epoch_batches(run.settings, data, number)
        for done, batch in enumerate(batches, 1):
            loss = loss_of(run.reader, batch, tensors, labels)
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            total += loss.item() * len(batch)
            on_step(number + 1, done, len(batches))
        accuracy = _accuracy(run.reader, data.held_out, tensors, labels)
        seen = sum(map(len, batches))
        epoch = Epoch(total / seen, accuracy, time.perf_counter() - begin)
        run.epochs.append(epoch)
        run.save(path)
        on_epoch(number + 1, epoch)


def epoch_batches(settings: Settings, data: Data, number: int) -> list[list[int]]:
    """The batches of epoch `number`, from 0: random but reproducible."""
    indices = list(data.training)
    random.Random(settings.seed).shuffle(indices)  # selects the functions of a shortened run
    indices = indices[: settings.functions]
    random.Random(f"{settings.seed} {number}").shuffle(indices)
    return list(_chunks(indices, settings.batch_size))


def loss_of(
    model: torch.nn.Module, batch: Sequence[int], tensors: Sequence[Tensor], labels: Tensor
) -> Tensor:
    """Mean cross entropy of one batch, given as indices."""
    return torch.nn.functional.cross_entropy(model([tensors[i] for i in batch]), labels[list(batch)])


@torch.no_grad()
def _accuracy(reader: Reader, indices: Sequence[int], tensors: Sequence[Tensor], labels: Tensor) -> float:
    longest_first = sorted(indices, key=lambda i: -len(tensors[i]))
    right = 0
    for batch in _chunks(longest_first, 128):
        right += int((reader([tensors[i] for i in batch]).argmax(1) == labels[batch]).sum())
    return right / len(indices)


def _chunks(indices: list[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(indices), size):
        yield indices[start : start + size]


def _optimizer(reader: Reader, settings: Settings) -> torch.optim.Optimizer:
    return torch.optim.Adam(reader.parameters(), lr=settings.learning_rate)


def _software() -> dict[str, str]:
    """Versions that the exact results of a run depend on, besides its data and settings."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # a plain string: the loader rejects subclasses
        "backend": active(),
        "instruction set": f"{instruction_set()} (torch's {torch.backends.cpu.get_cpu_capability()})",
    }


def _sync_folder(folder: Path) -> None:
    """Flush a rename in `folder` to disk, on systems that can open folders."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
