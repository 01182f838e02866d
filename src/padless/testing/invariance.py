"""Runs each sequence alone and in a batch, and finds the first module whose output differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..packed import Packed, pack

__all__ = ["Invariance", "check_batch_invariance"]


@dataclass(frozen=True)
class Invariance:
    """The result of `check_batch_invariance`.

    Attributes:
        module: name of the first module whose output differs; "" for the model itself; None if there is none.
        kind: class of that module.
        sequence: the sequence that differs most there.
        difference: its largest absolute difference.
        compared: number of module outputs that were compared.
        skipped: modules whose outputs could not be separated into sequences.
    """

    module: str | None
    kind: str
    sequence: int
    difference: float
    compared: int
    skipped: tuple[str, ...]

    @property
    def is_invariant(self) -> bool:
        """Whether no output differs."""
        return self.module is None

    def __str__(self) -> str:
        skipped = f"; not compared: {', '.join(self.skipped)}" if self.skipped else ""
        if self.module is None:
            return (
                f"each sequence has the same result alone and in the batch ({self.compared} outputs{skipped})"
            )
        name = f"module {self.module!r} ({self.kind})" if self.module else f"the model itself ({self.kind})"
        return (
            f"{name} is the first whose output depends on the batch: sequence {self.sequence} differs by "
            f"{self.difference:.3g} between alone and in the batch. Look for padding that it reads: a mean, softmax, "
            f"normalisation, convolution or last step over padded steps{skipped}"
        )


def check_batch_invariance(
    model: torch.nn.Module,
    sequences: Sequence[Tensor],
    *,
    batch: Callable[[list[Tensor]], Any] = pack,
    tolerance: float = 1e-4,
    raise_exception: bool = True,
) -> Invariance:
    """Check, module by module, whether a model gives each sequence the same result alone and in a batch.

    The model runs in evaluation mode without gradients, once on all sequences and once on each. Compared outputs are
    `Packed`, `PackedSequence`, and tensors with one entry per sequence, per row, or per cell of the padded batch,
    without its padding.

    Args:
        model: any module.
        sequences: at least two tensors `(len, *)`, best of different lengths.
        batch: makes the model's input, one argument or a tuple, from a list of sequences: `pack`, or for a padded
            model `lambda s: (pad_sequence(s, batch_first=True), torch.tensor([len(x) for x in s]))`.
        tolerance: largest difference that counts as equal: absolute for values up to 1, relative for larger ones.
        raise_exception: whether to raise if outputs differ; otherwise the result is returned.

    Returns:
        The result; `str(result)` describes it in a sentence.

    Raises:
        AssertionError: a module's output differs, and `raise_exception` is True.
        ValueError: fewer than two sequences.

    >>> class MeanOfPadding(torch.nn.Module):
    ...     def forward(self, padded):
    ...         return padded.mean(1)
    >>> sequences = [torch.ones(3, 2), torch.ones(1, 2)]
    >>> pad = lambda s: torch.nn.utils.rnn.pad_sequence(s, batch_first=True)
    >>> result = check_batch_invariance(MeanOfPadding(), sequences, batch=pad, raise_exception=False)
    >>> result.is_invariant, result.kind, result.sequence
    (False, 'MeanOfPadding', 1)
    """
    if len(sequences) < 2:
        raise ValueError(f"check_batch_invariance needs at least two sequences, got {len(sequences)}")
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        together = _outputs(model, batch(list(sequences)))
        alone = [_outputs(model, batch([sequence])) for sequence in sequences]
    finally:
        for module, was in training.items():
            module.training = was
    result = _compared(model, together, alone, [len(s) for s in sequences], tolerance)
    if raise_exception and not result.is_invariant:
        raise AssertionError(str(result))
    return result


def _outputs(model: torch.nn.Module, inputs: Any) -> list[tuple[str, Any]]:
    """The tensors and batches that each module returns, in the order in which the modules finish."""
    found: list[tuple[str, Any]] = []

    def note(name: str) -> Any:
        def hook(module: torch.nn.Module, arguments: Any, output: Any) -> None:
            found.extend((name, part) for part in _parts(output))

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(*inputs) if type(inputs) is tuple else model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _parts(output: Any) -> list[Any]:
    if isinstance(output, (Tensor, Packed, PackedSequence)):
        return [output]
    if isinstance(output, dict):
        output = list(output.values())
    return [part for item in output for part in _parts(item)] if isinstance(output, (list, tuple)) else []


def _compared(
    model: torch.nn.Module,
    together: list[tuple[str, Any]],
    alone: list[list[tuple[str, Any]]],
    lengths: list[int],
    tolerance: float,
) -> Invariance:
    modules, skipped, compared = dict(model.named_modules()), [], 0
    for at, (name, output) in enumerate(together):
        singles = [
            outputs[at][1]
            for outputs in alone
            if len(outputs) == len(together) and outputs[at][0] == name  # the same call
        ]
        differences = _differences(output, singles, lengths) if len(singles) == len(lengths) else None
        if differences is None:
            skipped.append(name or type(model).__name__)
            continue
        compared += 1
        worst = max(range(len(differences)), key=differences.__getitem__)
        if differences[worst] > tolerance:
            kind = type(modules[name]).__name__
            return Invariance(name, kind, worst, differences[worst], compared, tuple(skipped))
    return Invariance(None, "", -1, 0.0, compared, tuple(dict.fromkeys(skipped)))


def _differences(together: Any, alone: list[Any], lengths: list[int]) -> list[float] | None:
    """The difference of each sequence of an output from its result alone, or None if it cannot be separated.

    A shape can have several meanings (3 steps of 3 sequences); the meaning must fit all runs, and the one with the
    smallest difference is used.
    """
    whole = _readings(together, lengths)
    single = [_readings(output, [length]) for output, length in zip(alone, lengths, strict=True)]
    found = [
        [_difference(pieces[i], each[reading][0]) for i, each in enumerate(single)]
        for reading, pieces in whole.items()
        if all(reading in each for each in single)
    ]
    return min(found, key=max) if found else None


def _readings(output: Any, lengths: list[int]) -> dict[str, list[Tensor]]:
    """The part of an output that belongs to each sequence, for each possible meaning of its shape."""
    if isinstance(output, PackedSequence):
        output = Packed.from_packed_sequence(output)
    if isinstance(output, Packed):
        return {"packed": output.unpack()} if len(output) == len(lengths) else {}
    b, t, n = len(lengths), max(lengths), sum(lengths)
    shape, found = tuple(output.shape), {}
    if shape[:2] == (b, t):
        found["(B, T, *)"] = [rows[:length] for rows, length in zip(output, lengths, strict=True)]
    if shape[:2] == (t, b):
        found["(T, B, *)"] = [output[:length, i] for i, length in enumerate(lengths)]
    if len(shape) == 3 and shape[0] == b and shape[2] == t:  # the layout of convolutions
        found["(B, C, T)"] = [rows[:, :length] for rows, length in zip(output, lengths, strict=True)]
    if shape[:1] == (n,):
        found["(N, *)"] = list(output.split(lengths))
    if len(shape) == 3 and shape[1] == b:
        found["(L*D, B, H)"] = list(output.unbind(1))
    if shape[:1] == (b,):
        found["(B, *)"] = list(output)
    return found


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference, relative for values over 1; infinite if shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    if a.numel() == 0:
        return 0.0
    a, b = a.double(), b.double()
    is_same = (a == b) | (a.isnan() & b.isnan())
    scale = b.abs().nan_to_num(nan=1.0).clamp(min=1)
    return float(((a - b).abs() / scale).nan_to_num(nan=float("inf")).where(~is_same, 0).max())
