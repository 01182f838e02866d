"""Conversions between back-to-back rows and torch's nested tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import LayoutError
from ..layout.checks import as_lengths, lengths_of_offsets
from ..layout.layout import Layout, computed
from ..layout.rows import RowMap, move_rows

__all__ = ["nested_of_rows", "rows_of_nested"]


def rows_of_nested(nested: Tensor) -> tuple[Tensor, Layout]:
    """Rows `(N, *)` and layout of a nested tensor of B sequences `(len, *)`.

    The rows of a jagged tensor are a view; if it has holes or is strided, they are a copy.
    """
    if not isinstance(nested, Tensor) or not nested.is_nested:
        kind = "an ordinary tensor" if isinstance(nested, Tensor) else type(nested).__name__
        raise TypeError(f"from_nested takes a nested tensor, got {kind}")
    if nested.layout != torch.jagged:
        return _rows_of_strided(nested)
    if nested._ragged_idx != 1:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            f"from_nested needs the ragged dimension to be 1, (B, len, *), "
            f"got {nested._ragged_idx}: transpose it first"  # pyright: ignore[reportAttributeAccessIssue]
        )
    values, offsets = nested.values(), nested.offsets()  # pyright: ignore[reportAttributeAccessIssue]
    lengths = nested.lengths()  # pyright: ignore[reportAttributeAccessIssue]
    if lengths is not None:
        return _rows_between_holes(values, offsets[: len(lengths)], as_lengths(lengths))
    layout = Layout(lengths_of_offsets(offsets, rows=values.shape[0]))
    layout.nested_offsets[values.device] = offsets
    return values, layout


def nested_of_rows(data: Tensor, layout: Layout) -> Tensor:
    """Jagged nested tensor `(B, len, *)` that is a view of `data (N, *)`."""
    offsets = layout.nested_offsets.get(data.device)
    if offsets is None:
        offsets, may_be_kept = computed(lambda: layout.offsets.to(data.device, copy=True))
        if may_be_kept:
            layout.nested_offsets[data.device] = offsets
    shortest = int(layout.lengths.min()) if layout.batch else 0
    return torch.nested.nested_tensor_from_jagged(data, offsets, min_seqlen=shortest, max_seqlen=layout.steps)


def _rows_between_holes(values: Tensor, starts: Tensor, lengths: Tensor) -> tuple[Tensor, Layout]:
    layout, starts = Layout(lengths), starts.cpu()  # synchronises if the values are on a device
    _check_ranges(starts, starts + lengths, values.shape[0])
    return move_rows(values, RowMap.placing(layout.ranges(starts), values.shape[0]).inverted()), layout


def _check_ranges(starts: Tensor, ends: Tensor, rows: int) -> None:
    """Raise LayoutError unless the rows `[starts[i], ends[i])` exist and each belongs to only one sequence."""
    is_wrong = (ends > starts) & ((starts < 0) | (ends > rows))
    if bool(is_wrong.any()):
        i = int(is_wrong.nonzero()[0, 0])
        raise LayoutError(
            f"from_nested: sequence {i} is rows {int(starts[i])} to {int(ends[i])}, but the values have {rows}"
        )
    order = starts.argsort(stable=True)
    order = order[(ends > starts)[order]]
    overlaps = ends[order[:-1]] > starts[order[1:]]
    if bool(overlaps.any()):
        at = int(overlaps.nonzero()[0, 0])
        raise LayoutError(f"from_nested: sequences {int(order[at])} and {int(order[at + 1])} share rows")


def _rows_of_strided(nested: Tensor) -> tuple[Tensor, Layout]:
    sequences = nested.unbind()
    for i, sequence in enumerate(sequences):
        if sequence.dim() == 0 or sequence.shape[1:] != sequences[0].shape[1:]:
            raise ValueError(
                f"from_nested: sequence {i} has shape {tuple(sequence.shape)}, "
                f"sequence 0 has {tuple(sequences[0].shape)}: only dimension 0 may differ"
            )
    if not sequences:
        return torch.zeros(0, dtype=nested.dtype, device=nested.device), Layout(as_lengths([]))
    return torch.cat(sequences), Layout(as_lengths([len(sequence) for sequence in sequences]))
