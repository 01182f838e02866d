"""Index arithmetic and copies of rows by the native library, which addresses rows by sequence and step.

This module is optional: if the library may not be called, `layout` and `rows` do the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from ctypes import Array, addressof, c_int64
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import (
    is_functorch_wrapped_tensor,
    is_legacy_batchedtensor,
    peek_interpreter_stack,
)
from torch.nn import Parameter

from ..errors import BackendError
from ..library import Move, MovedRows, check, is_available, is_forked, load
from ..options import MOST_THREADS

__all__ = [
    "Places",
    "Walk",
    "arranged",
    "copy_rows",
    "is_transformed",
    "is_walkable",
    "lengths_of_slots",
    "may_call_library",
    "prefer_large_pages",
    "row_bytes",
    "team_size",
]

_TEAM_BYTES = 1 << 20  # about 100 us; for less, a second thread may cost more than it saves
_LARGE_PAGES_BYTES = 4 << 20  # from here on, the first access to a new tensor takes most of the time
_forward_ad = torch.autograd.forward_ad


class Places(NamedTuple):
    """Where rows are; one of three forms.

    Packed by step (`first`, `batch_sizes`): row t of sequence b is at position `first[b]`, its slot, within step t.
    Back to back (`first`): it is row `first[b] + t`. Cells of a padded grid: it is row `b * sequence + t * step`.
    Tensors are int64, on the host and contiguous.
    """

    first: Tensor | None = None  # (B,)
    batch_sizes: Tensor | None = None  # (T,)
    step: int = 1
    sequence: int = 0


class Walk(NamedTuple):
    """Where the rows of B sequences are in a source and in a target."""

    lengths: Tensor  # (B,) int64, host, contiguous
    steps: int  # T, of a grid that may be longer than the longest sequence
    source: Places
    target: Places
    right_aligned: bool  # the rows of a sequence end at the last step of a grid

    def inverted(self) -> Walk:
        """The inverse walk."""
        return self._replace(source=self.target, target=self.source)


def team_size() -> int:
    """Threads for a large call of the library: as many as torch uses; 1 in a forked process."""
    return 1 if is_forked() else min(torch.get_num_threads(), MOST_THREADS)


def prefer_large_pages(new: Tensor) -> Tensor:
    """The tensor, contiguous and not yet written, on large pages if it is large."""
    if new.nbytes >= _LARGE_PAGES_BYTES:
        load().padless_advise_large_pages(new.data_ptr(), new.nbytes)
    return new


def is_transformed() -> bool:
    """Whether a `torch.func` transform or forward-mode AD is active."""
    return peek_interpreter_stack() is not None or _forward_ad._current_level >= 0


def may_call_library() -> bool:
    """Whether the library may write to new tensors without torch noticing.

    Not while torch tracks every operator: transforms, forward-mode AD, tracing, fake tensors.

    Raises:
        BackendError: `PADLESS_ISA` forces an instruction set that is not available.
    """
    return (
        not torch.compiler.is_compiling()
        and not is_transformed()
        and torch._C._len_torch_dispatch_stack() == 0
        and not torch._C._is_tracing()
        and is_available()
    )


def _is_readable(numbers: Tensor) -> bool:
    """Whether the library may read these int64 numbers; it cannot read tensors wrapped by a transform."""
    return (
        type(numbers) is Tensor
        and numbers.dtype is torch.int64
        and numbers.dim() == 1
        and numbers.is_cpu
        and numbers.is_contiguous()
        and not is_functorch_wrapped_tensor(numbers)
    )


def arranged(lengths: Tensor, order: Tensor, steps: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Slots `(B,)`, offsets `(B+1,)` and batch sizes `(T,)` of B lengths, or None if the library may not be called.

    Args:
        lengths: `(B,)`, int64 on the host, from 0 to `steps` = T.
        order: `(B,)`, the sequence in each slot.
    """
    if not (may_call_library() and _is_readable(lengths) and _is_readable(order)):
        return None
    batch = lengths.numel()
    slots, offsets, batch_sizes = order.new_empty(batch), order.new_empty(batch + 1), order.new_empty(steps)
    code = load().padless_arrange(
        lengths.data_ptr(), batch, steps, order.data_ptr(),
        slots.data_ptr(), offsets.data_ptr(), batch_sizes.data_ptr(),
    )  # fmt: skip
    check(code, "arrange")
    return slots, offsets, batch_sizes


def lengths_of_slots(batch_sizes: Any, order: Any, slots: Any, *, rows: int) -> Tensor | None:
    """Lengths `(B,)` of the sequences of `batch_sizes (T,)`, whose `order` and `slots` may both be None.

    In that case slot b is sequence b. Returns None if the library may not be called, or if the arguments are invalid;
    `checks` then raises the error.
    """
    if not (may_call_library() and isinstance(batch_sizes, Tensor) and _is_readable(batch_sizes)):
        return None
    steps, order_at, slots_at = batch_sizes.numel(), 0, 0
    if order is None and slots is None:
        # Read without torch: an element and its number as an int are two more tensors.
        batch = c_int64.from_address(batch_sizes.data_ptr()).value if steps else 0
        if not 0 <= batch <= rows:
            return None
    else:
        if not (isinstance(order, Tensor) and isinstance(slots, Tensor)):
            return None
        if not (_is_readable(order) and _is_readable(slots) and order.shape == slots.shape):
            return None
        batch, order_at, slots_at = order.numel(), order.data_ptr(), slots.data_ptr()
    lengths = batch_sizes.new_empty(batch)
    code = load().padless_lengths(
        batch_sizes.data_ptr(), steps, rows, order_at, slots_at, batch, lengths.data_ptr()
    )
    return None if code else lengths


def is_walkable(*data: Tensor) -> bool:
    """Whether the library may read each of `data (N, *)` in place, and rows are not empty."""
    return may_call_library() and row_bytes(data[0]) > 0 and all(map(_is_plain, data))


def _is_plain(data: Tensor) -> bool:
    return (
        (type(data) is Tensor or type(data) is Parameter)
        and data.device.type == "cpu"
        and data.layout is torch.strided
        and data.is_contiguous()
        and not data.is_neg()
        and not data.is_conj()
        and not data.is_quantized
        and not data._is_zerotensor()
        and not is_legacy_batchedtensor(data)
    )


def row_bytes(data: Tensor) -> int:
    """Bytes of one row of `data (N, *)`."""
    return data.element_size() * math.prod(data.shape[1:])


def copy_rows(
    walk: Walk,
    source: Tensor | Sequence[Tensor],
    target: Tensor | Sequence[Tensor],
    fill: Tensor | None = None,
) -> None:
    """Copy every row from `source` to `target`: tensors `(N, *)`, or B tensors `(lengths[b], *)`, all walkable.

    Args:
        walk: where the rows are; the side of a list of tensors is ignored.
        target: new memory, with the dtype and trailing shape of the source.
        fill: `(*)`, the row for cells of a grid without a row.
    """
    some = target if isinstance(target, Tensor) else source
    if not isinstance(some, Tensor):
        raise TypeError("source or target must be a tensor")
    size = row_bytes(some)
    if isinstance(target, Tensor):
        prefer_large_pages(target)
    threads = team_size() if some.nbytes >= _TEAM_BYTES else 1
    move = Move()
    move.sequences, move.steps, move.row_bytes, move.threads = walk.lengths.numel(), walk.steps, size, threads
    move.lengths, move.right_aligned = walk.lengths.data_ptr(), walk.right_aligned
    move.fill = 0 if fill is None else fill.data_ptr()
    _source_pieces = _describe(move.source, walk.lengths, walk.source, source, size)
    _target_pieces = _describe(
        move.target, walk.lengths, walk.target, target, size
    )  # the names keep them alive
    check(load().padless_move_rows(addressof(move)), "move_rows")


def _describe(
    rows: MovedRows, lengths: Tensor, places: Places, data: Tensor | Sequence[Tensor], size: int
) -> Array[c_int64] | None:
    """Set the fields for `data` with rows of `size` bytes; return an array that must stay alive while they are used."""
    if not isinstance(data, Tensor):
        if [piece.nbytes for piece in data] != [length * size for length in lengths.tolist()]:
            raise BackendError("native move_rows: a sequence does not have as many rows as its length says")
        pieces = (c_int64 * len(data))(*[piece.data_ptr() for piece in data])
        rows.pieces = addressof(pieces)
        return pieces
    first, batch_sizes, rows.step, rows.sequence = places
    rows.data, rows.rows = data.data_ptr(), data.shape[0]
    if first is not None:
        rows.first = first.data_ptr()
    if batch_sizes is not None:
        rows.batch_sizes, rows.size_count = batch_sizes.data_ptr(), batch_sizes.numel()
    return None
