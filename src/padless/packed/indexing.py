"""Indexing of `Packed`: one sequence, a slice, or several sequences by number or mask."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..layout.checks import for_torch, is_bool
from ..layout.layout import Layout
from ..layout.rows import RowMap, move_rows, take_rows

__all__ = ["gather_sequences", "one_sequence", "slice_sequences"]


def one_sequence(data: Tensor, layout: Layout, index: Any) -> Tensor:
    """Return sequence `index`, `(len, *)`, as a view of the data; negative numbers count from the end."""
    batch = layout.lengths.shape[0]
    try:
        if is_bool(index):
            raise TypeError
        i = operator.index(index)  # synchronises if the index is a tensor on a device
    except TypeError:
        raise TypeError(
            f"the index of a Packed must be a number, a slice, a list, or an array of numbers or booleans, "
            f"got {type(index).__name__}"
        ) from None
    if not -batch <= i < batch:
        raise IndexError(f"index {i} is out of range for {batch} sequences")
    start, stop = layout.offsets[i % batch :][:2].tolist()
    return data[start:stop]


def slice_sequences(data: Tensor, layout: Layout, index: slice) -> tuple[Tensor, Layout]:
    """Return the rows and the layout of a slice of the sequences: a view if its step is 1."""
    start, stop, step = index.indices(layout.lengths.shape[0])
    if step != 1:
        return _gather(data, layout, torch.tensor(range(start, stop, step), dtype=torch.int64, device="cpu"))
    first, last = layout.offsets[[start, stop]].tolist()
    return data[first:last], Layout(layout.lengths[start:stop])


def gather_sequences(data: Tensor, layout: Layout, index: Any) -> tuple[Tensor, Layout]:
    """Return the rows and the layout of the sequences that a list, array or tensor names: a copy."""
    return _gather(data, layout, _sequence_numbers(index, layout.lengths.shape[0]))


def _gather(data: Tensor, layout: Layout, sequences: Tensor) -> tuple[Tensor, Layout]:
    gathered = Layout(layout.lengths[sequences])
    source = gathered.ranges(layout.offsets[sequences])
    if torch.compiler.is_compiling() or (len(sequences) > 1 and int(torch.bincount(sequences).max()) > 1):
        # If a row is used twice, its gradients must be added, which a row map cannot do.
        return take_rows(data, source.to(data.device)), gathered
    kept = RowMap.placing(source, layout.rows).inverted()
    return move_rows(data, kept), gathered


def _sequence_numbers(index: Any, batch: int) -> Tensor:
    """The sequence numbers `(K,)`, on the host, of a list, array or tensor of numbers or booleans."""
    if isinstance(index, list) and len({isinstance(each, bool) for each in index}) > 1:
        raise TypeError("an index must hold whole numbers or booleans, not both")
    if isinstance(index, np.ndarray) and not torch.compiler.is_compiling():
        index = for_torch(index)
    try:
        numbers = torch.as_tensor(index, device="cpu")  # synchronises if the index is on a device
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"an index must hold whole numbers or booleans: {error}") from error
    if numbers.dim() != 1:
        raise IndexError(f"an index must be one-dimensional, got shape {tuple(numbers.shape)}")
    if numbers.dtype == torch.bool:
        if len(numbers) != batch:
            raise IndexError(f"a mask must have one boolean per sequence, {batch}, got {len(numbers)}")
        return numbers.nonzero()[:, 0]
    if len(numbers) == 0:
        return torch.zeros(0, dtype=torch.int64, device="cpu")
    if numbers.dtype == torch.uint8 and isinstance(index, Tensor):  # as a mask in torch, but not in NumPy
        raise TypeError("an index of dtype uint8 may be a mask or numbers: convert it to bool or int64")
    if numbers.is_floating_point() or numbers.is_complex():
        raise TypeError(f"an index must hold whole numbers or booleans, got {numbers.dtype}")
    numbers = numbers.to(torch.int64)
    outside = (numbers < -batch) | (numbers >= batch)
    if torch.compiler.is_compiling():
        torch.ops.aten._assert_async.msg(~outside.any(), "an index is out of range")
    elif bool(outside.any()):
        i = int(outside.nonzero()[0, 0])
        raise IndexError(f"index[{i}] = {int(numbers[i])} is out of range for {batch} sequences")
    return torch.where(numbers < 0, numbers + batch, numbers)
