"""Runs each sequence alone and in a batch, and finds the first module whose output differs."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..layout.layout import Layout
from ..layout.rows import move_rows
from ..packed import Packed, pack

__all__ = ["Invariance", "check_batch_invariance"]

_Call = tuple[str, list[Any]]  # a module's name, and the parts of its output


@dataclass(frozen=True)
class Invariance:
    """The result of `check_batch_invariance`.

    Attributes:
        module: name of the first module whose output differs; "" for the model itself; None if there is none.
        kind: class of that module.
        sequence: the sequence that differs most there.
        difference: its largest difference, relative for values over 1.
        compared: number of module outputs that were compared.
        skipped: modules with outputs that could not be compared.
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
            f"{self.difference:.3g} (relative for values over 1) between alone and in the batch. Look for padding that "
            f"it reads: a mean, softmax, normalisation, convolution or last step over padded steps{skipped}"
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
    without its padding, also in lists, dictionaries and dataclasses. Other outputs are listed as skipped, and so are
    those of a module inside that is called another number of times alone than in the batch.

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
        ValueError: fewer than two sequences, a tolerance below 0 or NaN, or no output that could be compared.

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
    if not tolerance >= 0:  # also raises for NaN
        raise ValueError(f"check_batch_invariance: tolerance must be 0 or more, got {tolerance}")
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        together = _calls(model, batch([_copied(sequence) for sequence in sequences]))
        alone = [_calls(model, batch([_copied(sequence)])) for sequence in sequences]
    finally:
        for module, was in training.items():
            module.training = was
    result = _compared(model, together, alone, [len(s) for s in sequences], tolerance)
    if raise_exception and not result.is_invariant:
        raise AssertionError(str(result))
    return result


def _copied(sequence: Any) -> Any:
    """A copy, because a model may change its input in place; `batch` may read other things than tensors."""
    return sequence.detach().clone() if isinstance(sequence, Tensor) else deepcopy(sequence)


def _calls(model: torch.nn.Module, inputs: Any) -> list[_Call]:
    """Name and output of each module call, in the order in which the calls finish; the model's own is the last."""
    calls: list[_Call] = []

    def note(name: str) -> Any:
        def hook(module: torch.nn.Module, arguments: Any, output: Any) -> None:
            calls.append((name, _parts(output)))

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            output = model(*inputs) if type(inputs) is tuple else model(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return [*calls, ("", _parts(output))]


def _parts(output: Any) -> list[Any]:
    """The values in an output; tensors and batches are copied, because the model may change its own in place."""
    if output is None:
        return []
    if isinstance(output, Tensor):
        return [output.detach().clone()]
    if isinstance(output, Packed):
        return [output.map(lambda rows: rows.detach().clone())]
    if isinstance(output, PackedSequence):
        return [Packed.from_packed_sequence(output).map(lambda rows: rows.detach().clone())]
    if is_dataclass(output) and not isinstance(output, type):
        output = [getattr(output, field.name) for field in fields(output)]
    elif isinstance(output, dict):
        output = list(output.values())
    if isinstance(output, (list, tuple)):
        return [part for item in output for part in _parts(item)]
    return [output]


def _compared(
    model: torch.nn.Module,
    together: list[_Call],
    alone: list[list[_Call]],
    lengths: list[int],
    tolerance: float,
) -> Invariance:
    modules, skipped, compared = dict(model.named_modules()), [], 0
    whole = _by_module(together)
    single = [_by_module(calls) for calls in alone]
    done: Counter[str] = Counter()
    for name, parts in together:
        # A module that is called once a step has other numbers of calls alone: they do not correspond.
        is_same_call = all(len(calls[name]) == len(whole[name]) for calls in single)
        singles = [calls[name][done[name]] for calls in single] if is_same_call else []
        done[name] += 1
        for differences in _differences_of_parts(parts, singles, lengths):
            if differences is None:
                skipped.append(name or type(model).__name__)
                continue
            compared += 1
            worst = max(range(len(differences)), key=differences.__getitem__)
            if differences[worst] > tolerance:
                kind = type(modules[name]).__name__
                return Invariance(name, kind, worst, differences[worst], compared, _unique(skipped))
    if not compared:
        raise ValueError(
            "check_batch_invariance could compare nothing: neither the model nor a module in it returns a tensor "
            "with one entry per sequence, row or padded cell"
        )
    return Invariance(None, "", -1, 0.0, compared, _unique(skipped))


def _by_module(calls: list[_Call]) -> dict[str, list[list[Any]]]:
    """The outputs of each module's calls, in order."""
    outputs: dict[str, list[list[Any]]] = defaultdict(list)
    for name, parts in calls:
        outputs[name].append(parts)
    return outputs


def _unique(names: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def _differences_of_parts(
    parts: list[Any], singles: list[list[Any]], lengths: list[int]
) -> list[list[float] | None]:
    """`_differences` of each part of an output; `singles` is empty if no calls correspond."""
    if singles and all(len(single) == len(parts) for single in singles):
        return [
            _differences(part, [single[i] for single in singles], lengths) for i, part in enumerate(parts)
        ]
    is_one_each = len(parts) == len(lengths) and all(len(single) == 1 for single in singles)
    if singles and is_one_each and all(isinstance(part, Tensor) for part in parts):
        return [[_difference(part, single[0]) for part, single in zip(parts, singles, strict=True)]]
    return [None] * len(parts)


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
    if isinstance(output, Packed):
        return {"packed": output.unpack()} if len(output) == len(lengths) else {}
    if not isinstance(output, Tensor):
        return {}
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
        found["(N, *) in the order of time"] = _of_time_major(output, lengths)
    if len(shape) == 3 and shape[1] == b:
        found["(L*D, B, H)"] = list(output.unbind(1))
    if shape[:1] == (b,):
        found["(B, *)"] = list(output)
    return found


def _of_time_major(rows: Tensor, lengths: list[int]) -> list[Tensor]:
    """The rows of each sequence among the rows of a `PackedSequence`."""
    layout = Layout(torch.tensor(lengths, device="cpu"))
    return list(move_rows(rows, layout.time_major.inverted()).split(lengths))


def _difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference, relative for values over 1; infinite if shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    if a.numel() == 0:
        return 0.0
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    a, b = a.to(wide), b.to(wide)
    is_same = (a == b) | (a.isnan() & b.isnan())
    scale = b.abs().nan_to_num(nan=1.0).clamp(min=1)  # of a complex number its modulus
    return float(((a - b).abs() / scale).nan_to_num(nan=float("inf")).where(~is_same, 0).max())
