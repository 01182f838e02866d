"""Converts input of any kind (PackedSequence, Packed, nested, padded) to rows, and output rows back to that kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.modules.rnn import RNNBase
from torch.nn.utils.rnn import PackedSequence

from ..layout.checks import as_lengths, check_batch_sizes, check_inverse, check_permutation
from ..layout.layout import Layout
from ..layout.rows import RowMap, move_rows
from ..layout.schedule import Place, Schedule, back_to_back, copied
from ..layout.walks import lengths_of_slots
from ..packed import Packed

__all__ = ["OpenBatch", "check_dims", "check_kind", "in_time_major", "open_grid", "open_input"]


class OpenBatch(NamedTuple):
    """Input of any kind as rows in their original place, and the conversion back."""

    rows: Tensor  # (M, I), placed as `schedule` says
    schedule: Schedule
    restore: Callable[[Tensor], Any]  # output (M, *), placed like the rows -> the caller's kind
    to_time_major: Callable[[], RowMap] | None = None  # None: rows are in that order
    is_padded: bool = False
    is_unbatched: bool = False


def in_time_major(batch: OpenBatch) -> OpenBatch:
    """The same batch with its rows in time-major order, for backends that need it."""
    if batch.to_time_major is None:
        return batch
    rows = batch.to_time_major()
    return batch._replace(
        rows=move_rows(batch.rows, rows),
        schedule=batch.schedule.in_time_major(),
        restore=lambda output: batch.restore(move_rows(output, rows.inverted())),
        to_time_major=None,
    )


def check_kind(input: Any, lengths: Any) -> None:
    """Raise TypeError for unsupported input, and for `lengths` with input that has its own."""
    if lengths is not None and not (isinstance(input, Tensor) and not input.is_nested):
        raise TypeError(
            f"lengths goes with a padded tensor only; {type(input).__name__} input has its own lengths"
        )
    if not isinstance(input, (PackedSequence, Packed, Tensor)):
        raise TypeError(
            f"input must be a PackedSequence, a padless.Packed or a tensor, got {type(input).__name__}"
        )


def check_dims(module: RNNBase, input: Tensor) -> None:
    """Raise torch's ValueError unless a padded input has 2 or 3 dimensions."""
    if input.dim() not in (2, 3):
        name = "RNN" if module.mode.startswith("RNN") else module.mode
        shape = f"{input.dim()}D tensor" if name == "RNN" else f"{input.dim()}D"  # as in torch
        raise ValueError(f"{name}: Expected input to be 2D or 3D, got {shape} instead")


def open_input(module: RNNBase, input: Any, lengths: Any) -> OpenBatch:
    """Check `input`, of any kind, and describe its rows without moving them.

    Raises:
        TypeError: an unsupported kind of input, or `lengths` with input that has its own.
        ValueError, RuntimeError: as in torch for wrong widths and dtypes; LengthsError, LayoutError.
    """
    check_kind(input, lengths)
    if isinstance(input, PackedSequence):
        return _open_packed_sequence(module, input)
    if isinstance(input, Packed):
        return _open_packed(module, input)
    if input.is_nested and input.layout != torch.jagged:
        raise TypeError(f"a nested input must have layout=torch.jagged, got {input.layout}")
    if input.is_nested:
        return _open_nested(module, input)
    if input.layout != torch.strided:
        raise RuntimeError(f"input must be a dense tensor, got layout {input.layout}")
    check_dims(module, input)
    return _open_padded(module, input) if lengths is None else _open_ragged(module, input, lengths)


def _open_packed_sequence(module: RNNBase, packed: PackedSequence) -> OpenBatch:
    data, batch_sizes, sorted_indices, unsorted_indices = packed
    if not isinstance(data, Tensor) or data.layout != torch.strided:
        raise RuntimeError("the data of a PackedSequence must be a dense tensor")
    module.check_input(data, batch_sizes)
    rows = data.shape[0]
    lengths = (
        lengths_of_slots(batch_sizes, sorted_indices, unsorted_indices, rows=rows) if data.is_cpu else None
    )
    if lengths is not None:
        # They are valid, contiguous and on the CPU. Copied, because another thread may change them during the call, and
        # the caller before backward.
        sizes, order = copied(batch_sizes), None if sorted_indices is None else copied(sorted_indices)
        slots = lengths.shape[0] if order is None else None
        # `_make` does not check again what the constructor would.
        return OpenBatch(
            data,
            Schedule(sizes, rows=rows, slots=slots, order=order),
            lambda output: PackedSequence._make((output, *packed[1:])),
        )
    slots = check_batch_sizes(batch_sizes, rows=rows)
    order = sorted_indices
    if order is not None:
        check_permutation(order, at_least=slots, name="sorted_indices")
        if unsorted_indices is not None:
            check_inverse(unsorted_indices, order)
        order = copied(order.to(data.device))
    elif unsorted_indices is not None:
        check_permutation(unsorted_indices, at_least=slots, name="unsorted_indices")
        order = torch.argsort(unsorted_indices.to(data.device))
    return OpenBatch(
        data,
        Schedule(copied(batch_sizes), rows=rows, slots=slots, order=order),
        lambda output: PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices),
    )


def _open_packed(module: RNNBase, packed: Packed) -> OpenBatch:
    layout = packed._layout
    module.check_input(packed.data, layout.batch_sizes)
    return OpenBatch(
        packed.data,
        layout.on(packed.data.device, back_to_back),
        lambda output: Packed._of(output, layout),
        lambda: layout.time_major,
    )


def _open_nested(module: RNNBase, nested: Any) -> OpenBatch:
    packed = Packed.from_nested(nested)
    batch = _open_packed(module, packed)

    def restore(output: Tensor) -> Tensor:
        # Reuse the offsets tensor of the input: torch treats ragged shapes as equal only if they share it.
        rows = batch.restore(output).data
        if nested.lengths() is not None:
            return Packed._of(rows, packed._layout).to_nested()
        return torch.nested.nested_tensor_from_jagged(rows, nested.offsets())

    return batch._replace(restore=restore)


def _open_padded(module: RNNBase, input: Tensor) -> OpenBatch:
    is_unbatched = input.dim() == 2
    batch_dim = 0 if module.batch_first else 1
    grid = input.unsqueeze(batch_dim) if is_unbatched else input
    module.check_input(grid, None)
    batch = open_grid(grid, batch_first=module.batch_first)
    if not is_unbatched:
        return batch
    return batch._replace(restore=lambda cells: batch.restore(cells).squeeze(batch_dim), is_unbatched=True)


def open_grid(grid: Tensor, *, batch_first: bool) -> OpenBatch:
    """A padded batch in which every cell is real: `(B, T, I)` with `batch_first`, else `(T, B, I)`."""
    size, steps = (grid.shape[0], grid.shape[1]) if batch_first else (grid.shape[1], grid.shape[0])
    if steps == 0:
        raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
    # A batch without sequences has no steps.
    batch_sizes = torch.full((steps if size else 0,), size, device="cpu")
    count, is_time_major = steps * size, not batch_first or size <= 1
    place = None
    if not is_time_major:
        step, sequence = torch.arange(steps, device="cpu"), torch.arange(0, count, steps, device="cpu")
        place = Place(step, sequence, count, has_gaps=False)

    def to_time_major() -> RowMap:
        index = torch.arange(count, device="cpu").view(size, steps).t().reshape(-1)
        return RowMap.permutation(index, count)

    return OpenBatch(
        grid.reshape(count, grid.shape[2]),
        Schedule(batch_sizes, place, rows=count, slots=size),
        lambda cells: cells.view(*grid.shape[:2], cells.shape[1]),
        None if is_time_major else to_time_major,
        is_padded=True,
    )


def _open_ragged(module: RNNBase, input: Tensor, lengths: Any) -> OpenBatch:
    """A padded batch with lengths: cells past a length are neither read nor computed."""
    if input.dim() == 2:
        raise ValueError("lengths goes with a batch of sequences; an unbatched input (T, I) is one sequence")
    module.check_input(input, None)
    batch_dim, step_dim = (0, 1) if module.batch_first else (1, 0)
    size, steps = input.shape[batch_dim], input.shape[step_dim]
    layout = Layout(as_lengths(lengths, batch=size, steps=steps))
    batch_sizes = layout.batch_sizes  # first, since one call of the library computes the number of rows too
    step_stride, sequence_stride = layout.cell_strides(steps, module.batch_first)
    step = torch.arange(0, layout.steps * step_stride, step_stride, device="cpu")
    place = Place(step, layout.order * sequence_stride, size * steps, has_gaps=layout.rows < size * steps)
    return OpenBatch(
        input.reshape(size * steps, input.shape[2]),
        Schedule(batch_sizes, place, rows=layout.rows, order=layout.order.to(input.device)),
        lambda cells: cells.view(*input.shape[:2], cells.shape[1]),
        lambda: layout.padded_time_major(steps, batch_first=module.batch_first).inverted(),
        is_padded=True,
    )
