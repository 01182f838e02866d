"""Converts both kinds of input to a `Packed`, and results back to the kind of the input."""

from __future__ import annotations

from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import LengthsError
from ..layout.layout import Layout
from ..layout.rows import move_rows
from ..packed import Packed
from ..packed.packed_sequence import layout_of_packed_sequence
from ._sums import owners_on

__all__ = ["Batch", "as_packed", "layout_of", "of_kind", "owners", "rows_in_order_of", "with_rows"]

Batch = TypeVar("Batch", Packed, PackedSequence)


def as_packed(batch: Any, name: str) -> Packed:
    """The batch as a `Packed`, in the caller's order.

    Raises:
        TypeError: neither a `Packed` nor a `PackedSequence`.
    """
    if isinstance(batch, PackedSequence):
        return Packed.from_packed_sequence(batch)
    _check_kind(batch, name)
    return batch


def layout_of(batch: Any, name: str) -> Layout:
    """The layout of the batch, whose rows are not moved; raises like `as_packed`."""
    if isinstance(batch, PackedSequence):
        return layout_of_packed_sequence(batch)
    _check_kind(batch, name)
    return batch._layout


def _check_kind(batch: Any, name: str) -> None:
    if not isinstance(batch, Packed):
        raise TypeError(f"{name} takes a Packed or a PackedSequence, got {type(batch).__name__}")


def with_rows(batch: Batch, rows: Tensor) -> Batch:
    """The batch with other rows, in the order of `batch.data`."""
    return batch._replace(data=rows) if isinstance(batch, PackedSequence) else batch.map(lambda _: rows)


def of_kind(result: Packed, batch: Batch) -> Batch:
    """The result as a `PackedSequence` if `batch` is one; without indices if `batch` has and needs none."""
    if not isinstance(batch, PackedSequence):
        return cast(Batch, result)
    layout = result._layout
    if batch.sorted_indices is not None or torch.compiler.is_compiling() or not layout.is_sorted:
        return cast(Batch, result.to_packed_sequence())
    in_order = Packed._of(result.data, Layout(layout.lengths, order=torch.arange(layout.batch, device="cpu")))
    sequence = in_order.to_packed_sequence()
    if layout.batch and not layout.lengths[-1]:  # only the indices count sequences of length 0
        return cast(Batch, sequence)
    return cast(Batch, PackedSequence(sequence.data, sequence.batch_sizes))


def rows_in_order_of(batch: Batch, other: Any, name: str, names: tuple[str, str]) -> Tensor:
    """The rows of `other` in the order of `batch.data`; both must be of the same kind and have the same lengths.

    Raises:
        TypeError: `other` is of another kind.
        LengthsError: the lengths differ; the message names the first difference.
        RuntimeError: the same in a compiled program, where two `PackedSequence` must also have the same order.
    """
    if type(other) is not type(batch):
        raise TypeError(
            f"{name} takes two batches of one kind, got {type(batch).__name__} and {type(other).__name__}"
        )
    if isinstance(batch, PackedSequence) and torch.compiler.is_compiling():
        _assert_same_order(batch, cast(PackedSequence, other), name)
        return other.data
    ours, theirs = layout_of(batch, name), layout_of(other, name)
    if not ours.agrees_with(theirs):
        raise LengthsError(f"{name}: {_difference(ours, theirs, names)}")
    if isinstance(other, Packed) or torch.equal(ours.order, theirs.order):
        return other.data
    return move_rows(as_packed(other, name).data, ours.time_major)


def _assert_same_order(batch: PackedSequence, other: PackedSequence, name: str) -> None:
    """Make the compiled program check that both have the same batch sizes and indices."""
    pairs = [(batch.batch_sizes, other.batch_sizes)]
    ours, theirs = batch.sorted_indices, other.sorted_indices
    given = ours if ours is not None else theirs
    if given is not None:
        in_order = torch.arange(given.shape[0], device=given.device)
        pairs.append((in_order if ours is None else ours, in_order if theirs is None else theirs))
    message = f"{name}: two batches have different lengths or order"
    for one, two in pairs:
        torch._check(one.shape[0] == two.shape[0], lambda: message)
        torch.ops.aten._assert_async.msg((one == two).all(), message)
    torch._check(batch.data.shape[0] == other.data.shape[0], lambda: message)


def _difference(a: Layout, b: Layout, names: tuple[str, str]) -> str:
    one, two = names
    if a.batch != b.batch:
        return f"{a.batch} sequences in the {one}, but {b.batch} in the {two}"
    i = int((a.lengths != b.lengths).nonzero()[0, 0])
    return f"lengths[{i}] is {int(a.lengths[i])} in the {one}, but {int(b.lengths[i])} in the {two}"


def owners(packed: Packed) -> Tensor:
    """`(N,)` the sequence of each row, on the data's device."""
    return owners_on(packed._layout, packed.device)
