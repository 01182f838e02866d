"""`pack`: creates a `Packed` from a list of sequences or a padded tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..layout.checks import as_lengths, check_batch_first
from ..layout.layout import Layout
from ..layout.rows import cells_of, move_rows
from .value import Packed

__all__ = ["pack"]


def pack(sequences: Iterable[Tensor] | Tensor, lengths: Any = None, batch_first: bool = True) -> Packed:
    """The batch of B sequences, or of the first `lengths[b]` steps of each sequence of a padded tensor: a copy.

    Args:
        sequences: tensors `(len, *)` that differ only in `len`; or, with `lengths`, one padded tensor
            `(B, T, *)`, whose cells past the lengths are never read.
        lengths: B whole numbers up to T: list, tuple, NumPy array or tensor on any device.
        batch_first: whether the padded tensor is `(B, T, *)` or `(T, B, *)`.

    Raises:
        TypeError: the sequences are not tensors.
        ValueError: sequences differ in trailing shape, dtype or device; the message names the first that does.
        LengthsError: lengths do not fit the padded tensor; the message names the first that does not.

    >>> pack([torch.tensor([1, 2, 3]), torch.tensor([4])])
    Packed(B=2, N=4, T=3, fill=0.67, shape=(4,), dtype=torch.int64)
    >>> pack(torch.tensor([[1, 2, 3], [4, 0, 0]]), [3, 1]).data
    tensor([1, 2, 3, 4])
    """
    check_batch_first("pack", batch_first)
    if isinstance(sequences, Tensor):
        return _pack_padded(sequences, lengths, batch_first)
    if lengths is not None:
        raise TypeError(f"lengths are only for a padded tensor, got {type(sequences).__name__} and lengths")
    if isinstance(sequences, PackedSequence):
        raise TypeError("pack takes tensors (len, *), got PackedSequence: use Packed.from_packed_sequence")
    if isinstance(sequences, (str, bytes, dict)) or not isinstance(sequences, Iterable):
        raise TypeError(f"pack takes tensors (len, *), got {type(sequences).__name__}")
    tensors = list(sequences)
    for i, tensor in enumerate(tensors):
        _check_sequence(i, tensor, tensors[0])
    layout = Layout(as_lengths([tensor.shape[0] for tensor in tensors]))
    return Packed._of(torch.cat(tensors) if tensors else torch.zeros(0), layout)


def _pack_padded(padded: Tensor, lengths: Any, batch_first: bool) -> Packed:
    if padded.is_nested:
        raise TypeError("pack takes a padded tensor, got a nested one: use Packed.from_nested")
    if lengths is None:
        raise TypeError("pack(padded) needs lengths; pack(list(tensor)) packs whole rows")
    if padded.dim() < 2:
        raise ValueError(f"a padded tensor must be (B, T, *) or (T, B, *), got shape {tuple(padded.shape)}")
    batch, steps = padded.shape[:2] if batch_first else (padded.shape[1], padded.shape[0])
    layout = Layout(as_lengths(lengths, batch=batch, steps=steps))
    cells, batch_first = cells_of(padded, batch_first)
    return Packed._of(move_rows(cells, layout.padded(steps, batch_first=batch_first).inverted()), layout)


def _check_sequence(i: int, tensor: Any, first: Tensor) -> None:
    if not isinstance(tensor, Tensor):
        hint = "pack([*a, *b]) joins batches" if isinstance(tensor, Packed) else "use torch.as_tensor"
        raise TypeError(f"sequences[{i}] must be a tensor (len, *), got {type(tensor).__name__}: {hint}")
    if tensor.is_nested or tensor.dim() == 0:
        kind = "a nested tensor" if tensor.is_nested else "a scalar"
        raise ValueError(f"sequences[{i}] must be a tensor (len, *), got {kind}")
    for name, got, expected in (
        ("rows of shape", tuple(tensor.shape[1:]), tuple(first.shape[1:])),
        ("dtype", tensor.dtype, first.dtype),
        ("device", tensor.device, first.device),
    ):
        if got != expected:
            raise ValueError(f"sequences[{i}] has {name} {got}, but sequences[0] has {expected}")
