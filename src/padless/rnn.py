"""Counterparts of `torch.nn.utils.rnn`: same names, signatures, results and gradients, at the cost of real rows.

Nothing is padded in order to be packed, arguments are never changed, sequences may have length 0, and a
`PackedSequence` is checked before it is read, since users can construct it directly. In `torch.jit.trace` each
calls its counterpart, because a trace would keep the row indices, which come from NumPy, as constants.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch._C._nn import pad_sequence as _torch_pad_sequence
from torch.jit import is_tracing  # pyright: ignore[reportPrivateImportUsage]
from torch.nn.utils import rnn as _torch_rnn
from torch.nn.utils.rnn import PackedSequence

from .errors import LayoutError
from .layout.checks import as_lengths, check_batch_first, checked_fill, checked_total_length
from .layout.layout import Layout
from .layout.operators import pack_indices, pad_indices
from .layout.rows import RowMap, cells_of, join_rows, move_rows, split_rows
from .packed import Packed
from .packed.few import FEW_OF_PADDED, is_faster_in_torch, pack_few, pad_few
from .packed.packed_sequence import layout_of_packed_sequence

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]

# Bytes of a sequence from which handling it separately costs less than copying it once more.
_WORTH_A_LOOK = 64 << 10
_LITTLE = 1 << 20  # bytes that one thread writes in some 100 us
_LARGE = 32 << 20  # bytes from which the allocator requests new memory from the system each time


def pack_sequence(sequences: Iterable[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """PackedSequence of a list of tensors; bit-identical to torch's.

    Args:
        sequences: B tensors `(length, *)`, any dtype; also a tuple, a generator or one tensor `(B, length, *)`.
            The result has the dtype and device of the first.
        enforce_sorted: if True, raise unless sequences are in order of decreasing length, and store no indices.
            If False, they are sorted, and the indices hold the order.

    If a sequence has length 0, `sorted_indices` is stored in either case and includes it.

    Raises:
        RuntimeError: no sequences, trailing dimensions that do not match, or unsorted sequences.
        AttributeError, IndexError: an element that is not a tensor, or has no time dimension.

    >>> pack_sequence([torch.tensor([1, 2, 3]), torch.tensor([4, 5])])
    PackedSequence(data=tensor([1, 4, 2, 5, 3]), batch_sizes=tensor([2, 2, 1]),
                   sorted_indices=None, unsorted_indices=None)
    >>> pack_sequence([torch.tensor([1]), torch.tensor([]), torch.tensor([2, 3])], enforce_sorted=False)
    PackedSequence(data=tensor([2, 1, 3]), batch_sizes=tensor([2, 1]),
                   sorted_indices=tensor([2, 0, 1]), unsorted_indices=tensor([1, 2, 0]))
    """
    if is_tracing():
        return _torch_rnn.pack_sequence(list(sequences), enforce_sorted)
    if not isinstance(sequences, Iterable):
        kind = type(sequences).__name__
        raise TypeError(f"pack_sequence: sequences must be an iterable of tensors, got {kind}")
    parts = tuple(sequences)
    if is_faster_in_torch(len(parts), *parts) and _are_alike(parts):
        sizes = _host_tensor([len(part) for part in parts])
        few = pack_few(
            _torch_pad_sequence(parts, True), sizes, batch_first=True, enforce_sorted=enforce_sorted
        )
        if few is not None:
            return few
    rows, sizes = _back_to_back("pack_sequence", parts, AttributeError)
    layout = _slotted(_host_tensor(sizes), enforce_sorted)
    return _packed_sequence(_placed(rows, layout.time_major), layout, enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """The B sequences `(length, *)` of a PackedSequence, in the caller's order, as copies.

    Raises:
        LayoutError: invalid `batch_sizes` or indices.
        AttributeError: not a PackedSequence.

    >>> unpack_sequence(pack_sequence([torch.tensor([1, 2, 3]), torch.tensor([4, 5])]))
    [tensor([1, 2, 3]), tensor([4, 5])]
    """
    if is_tracing():
        return _torch_rnn.unpack_sequence(packed_sequences)
    _check_packed_sequence("unpack_sequence", packed_sequences)
    layout = layout_of_packed_sequence(packed_sequences)
    return split_rows(packed_sequences.data, layout.time_major.inverted(), layout.lengths.tolist())


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """PackedSequence of the real rows of a padded batch; bit-identical to torch's.

    Args:
        input: `(T, B, *)`, or `(B, T, *)` with `batch_first`; T may exceed the longest length.
        lengths: B whole numbers, 0 to T: list, tuple, NumPy array, or tensor on any device.
        batch_first: whether `input` is `(B, T, *)`.
        enforce_sorted: if True, raise unless lengths are non-increasing, and store no indices. If False, the
            sequences are sorted, and the indices hold the order.

    If a length or B is 0, `sorted_indices` is stored in either case and has B entries.

    Raises:
        LengthsError: a wrong number of lengths, or a length that is negative, not whole or longer than T.
        RuntimeError: unsorted lengths with `enforce_sorted`.
        TypeError, IndexError: `input` is not a tensor, or lacks time and batch dimensions.

    >>> padded = torch.tensor([[1, 2, 0], [3, 0, 0], [4, 5, 6]])
    >>> pack_padded_sequence(padded, [2, 0, 3], batch_first=True, enforce_sorted=False)
    PackedSequence(data=tensor([4, 1, 5, 2, 6]), batch_sizes=tensor([2, 2, 1]),
                   sorted_indices=tensor([2, 0, 1]), unsorted_indices=tensor([1, 2, 0]))
    """
    if is_tracing():
        return _torch_rnn.pack_padded_sequence(input, lengths, batch_first, enforce_sorted)
    if not isinstance(input, Tensor):
        kind = type(input).__name__
        raise TypeError(f"pack_padded_sequence: input must be a padded tensor, got {kind}")
    check_batch_first("pack_padded_sequence", batch_first)
    batch, steps = _grid_shape("pack_padded_sequence: input", input, batch_first)
    if torch.compiler.is_compiling():
        return _traced_pack(input, as_lengths(lengths, batch=batch), batch_first, enforce_sorted)
    checked = as_lengths(lengths, batch=batch, steps=steps)
    if is_faster_in_torch(batch, input, most=FEW_OF_PADDED):
        few = pack_few(input, checked, batch_first=batch_first, enforce_sorted=enforce_sorted)
        if few is not None:
            return few
    layout = _slotted(checked, enforce_sorted)
    cells, batch_first = cells_of(input, batch_first)
    from_cells = layout.padded_time_major(steps, batch_first=batch_first).inverted()
    return _packed_sequence(move_rows(cells, from_cells), layout, enforce_sorted)


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Padded batch and lengths of a PackedSequence, in the caller's order; bit-identical to torch's.

    The batch is contiguous, `(T, B, *)` or, with `batch_first`, `(B, T, *)`; the lengths are int64 `(B,)` on the
    CPU.

    Args:
        sequence: created by torch, by padless or directly.
        batch_first: whether to return `(B, T, *)`.
        padding_value: value of the cells past a length.
        total_length: T, if it should be more than the longest length.

    Raises:
        ValueError: `total_length` is less than the longest length.
        LayoutError: invalid `batch_sizes` or indices.
        AttributeError: not a PackedSequence.
        TypeError, RuntimeError: a `padding_value` that is not a number, or that the dtype cannot represent.

    >>> packed = pack_sequence([torch.tensor([1, 2, 3]), torch.tensor([4, 5])])
    >>> pad_packed_sequence(packed, batch_first=True, padding_value=9)
    (tensor([[1, 2, 3],
             [4, 5, 9]]), tensor([3, 2]))
    """
    if is_tracing():
        return _torch_rnn.pad_packed_sequence(sequence, batch_first, padding_value, total_length)
    _check_packed_sequence("pad_packed_sequence", sequence)
    check_batch_first("pad_packed_sequence", batch_first)
    if torch.compiler.is_compiling():
        return _traced_pad(sequence, batch_first, padding_value, total_length)
    fill = checked_fill("pad_packed_sequence", sequence.data, padding_value)
    few = pad_few(sequence, batch_first=batch_first, fill=fill, total_length=total_length)
    if few is not None:
        return few
    layout = layout_of_packed_sequence(sequence)
    steps = layout.steps
    if total_length is not None:
        steps = checked_total_length("pad_packed_sequence: total_length", total_length, steps)
    to_cells = layout.padded_time_major(steps, batch_first=batch_first)
    cells = move_rows(sequence.data, to_cells, fill=fill)
    return _grid(cells, layout.batch, steps, batch_first), layout.lengths


def pad_sequence(
    sequences: Iterable[Tensor],
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Padded batch of a list of tensors: `(T, B, *)`, or `(B, T, *)` with `batch_first`; equal to torch's.

    Args:
        sequences: B tensors `(length, *)`, any dtype; also a tuple, a generator or one tensor `(B, length, *)`.
            The result has the dtype and device of the first.
        batch_first: whether to return `(B, T, *)`.
        padding_value: value of the cells without a row.
        padding_side: "right" pads after the end of each sequence, "left" before its beginning.

    Raises:
        RuntimeError: no sequences, not an iterable, trailing dimensions that do not match, an unknown side, or a
            `padding_value` that the dtype cannot represent.
        TypeError, IndexError: an element that is not a tensor, or has no time dimension.

    >>> pad_sequence([torch.tensor([1, 2, 3]), torch.tensor([4])], batch_first=True, padding_side="left")
    tensor([[1, 2, 3],
            [0, 0, 4]])
    """
    if is_tracing():
        return _torch_rnn.pad_sequence(list(sequences), batch_first, padding_value, padding_side)
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            f"pad_sequence: Expected iterable for input sequences, but got arg of type: {type(sequences)}"
        )
    check_batch_first("pad_sequence", batch_first)
    if not isinstance(padding_side, str):
        kind = type(padding_side).__name__
        raise TypeError(f"pad_sequence: padding_side must be 'left' or 'right', not {kind}")
    if padding_side not in ("left", "right"):
        raise RuntimeError(f"Expected padding_side to be one of left or right, but got {padding_side}.")
    parts = tuple(sequences)
    if not _takes_gradients(parts) and len(parts) < 128 and not _fills_large_pages(parts):
        # torch's forward is as fast for few sequences, but its backward is less than half as fast for 64 sequences
        # (benchmarks/packing.py).
        try:
            return _torch_pad_sequence(parts, batch_first, padding_value, padding_side)
        except (IndexError, OverflowError, RuntimeError, TypeError):
            pass  # raises below, with a message that names the wrong sequence
    rows, sizes = _back_to_back("pad_sequence", parts, TypeError)
    if isinstance(padding_value, complex):
        raise TypeError("pad_sequence: padding_value must be float, not complex")
    # torch takes a double here, which must not be -1 for uint8.
    is_small = type(padding_value) is int and abs(padding_value) < 2**63
    given = float(padding_value) if is_small else padding_value
    fill = checked_fill("pad_sequence", parts[0], given)
    layout = Layout(_host_tensor(sizes))
    to_cells = layout.padded(layout.steps, batch_first=batch_first, left=padding_side == "left")
    return _grid(_placed(rows, to_cells, fill), layout.batch, layout.steps, batch_first)


def unpad_sequence(padded_sequences: Tensor, lengths: Any, batch_first: bool = False) -> list[Tensor]:
    """The B sequences `(length, *)` of a padded batch, as copies; the batch is not changed.

    Args:
        padded_sequences: `(T, B, *)`, or `(B, T, *)` with `batch_first`, padded on the right.
        lengths: B whole numbers, 0 to T: list, tuple, NumPy array, or tensor on any device.
        batch_first: whether the batch is `(B, T, *)`.

    Raises:
        LengthsError: a wrong number of lengths, or a length that is negative, not whole or longer than T.
        AttributeError, IndexError: not a tensor, or a tensor without time and batch dimensions.
        TypeError: `batch_first` is not a bool.

    >>> unpad_sequence(torch.tensor([[1, 2, 3], [4, 0, 0]]), [3, 1], batch_first=True)
    [tensor([1, 2, 3]), tensor([4])]
    """
    if is_tracing():
        return _torch_rnn.unpad_sequence(padded_sequences, torch.as_tensor(lengths), batch_first)
    if not isinstance(padded_sequences, Tensor):
        kind = type(padded_sequences).__name__
        raise AttributeError(f"unpad_sequence: padded_sequences must be a padded tensor, got {kind}")
    check_batch_first("unpad_sequence", batch_first)
    batch, steps = _grid_shape("unpad_sequence: padded_sequences", padded_sequences, batch_first)
    checked = as_lengths(lengths, batch=batch, steps=steps)
    if is_faster_in_torch(batch, padded_sequences, most=FEW_OF_PADDED):
        sequences = padded_sequences.unbind(0 if batch_first else 1)
        return [
            rows[:length].clone(memory_format=torch.contiguous_format)
            for rows, length in zip(sequences, checked.tolist(), strict=True)
        ]
    layout = Layout(checked)
    cells, batch_first = cells_of(padded_sequences, batch_first)
    from_cells = layout.padded(steps, batch_first=batch_first).inverted()
    return split_rows(cells, from_cells, layout.lengths.tolist())


def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """Inverse of an int64 permutation `(B,)`, on its device; None for None.

    Raises:
        LayoutError: a number occurs twice, for which torch returns uninitialised memory.
        RuntimeError: a number outside 0..B-1, or a dtype other than int64.
        TypeError, IndexError: not a tensor, or not one-dimensional.

    >>> invert_permutation(torch.tensor([2, 0, 1]))
    tensor([1, 2, 0])
    """
    if permutation is None:
        return None
    if not isinstance(permutation, Tensor):
        kind = type(permutation).__name__
        raise TypeError(f"invert_permutation: permutation must be a tensor, got {kind}")
    if permutation.dtype != torch.int64:
        raise RuntimeError(f"invert_permutation: permutation must be int64, got {permutation.dtype}")
    if permutation.dim() != 1:
        shape = tuple(permutation.shape)
        raise IndexError(f"invert_permutation: permutation must be one-dimensional, (B,), got shape {shape}")
    count = permutation.numel()
    places = torch.arange(count, device=permutation.device)
    if not permutation.is_meta and count:
        outside = (permutation < 0) | (permutation >= count)
        if bool(outside.any()):  # synchronises if the permutation is on a device
            i = int(outside.nonzero()[0, 0])
            raise RuntimeError(
                f"invert_permutation: permutation[{i}] = {int(permutation[i])} is outside 0..{count - 1}"
            )
    inverse = torch.zeros_like(places).scatter_(0, permutation, places)
    if not permutation.is_meta and not torch.equal(inverse[permutation], places):
        i = int((inverse[permutation] != places).nonzero()[0, 0])
        raise LayoutError(f"invert_permutation: permutation has {int(permutation[i])} more than once")
    return inverse


def _traced_pack(input: Tensor, lengths: Tensor, batch_first: bool, enforce_sorted: bool) -> PackedSequence:
    """`pack_padded_sequence` under `torch.compile`; indices are always stored, since that cannot depend on values."""
    steps = input.shape[1] if batch_first else input.shape[0]
    cells, batch_sizes, order, slots = pack_indices(lengths, steps, batch_first, enforce_sorted)
    device = input.device
    data = input.flatten(0, 1).index_select(0, cells.to(device))
    return PackedSequence(data, batch_sizes, order.to(device), slots.to(device))


def _traced_pad(
    sequence: PackedSequence, batch_first: bool, padding_value: float, total_length: int | None
) -> tuple[Tensor, Tensor]:
    """`pad_packed_sequence` under `torch.compile`."""
    data, batch_sizes, order, slots = sequence
    if order is None and slots is not None:
        order = torch.argsort(slots)
    steps = batch_sizes.shape[0] if total_length is None else total_length
    rows, lengths = pad_indices(batch_sizes, order, data.shape[0], steps, batch_first)
    filled = torch.cat([data, data.new_full((1, *data.shape[1:]), padding_value)])
    grid = filled.index_select(0, rows.flatten().to(data.device))
    return grid.view(*rows.shape, *data.shape[1:]), lengths


def _packed_sequence(data: Tensor, layout: Layout, enforce_sorted: bool) -> PackedSequence:
    """The PackedSequence; without indices if the input must be sorted and `batch_sizes` counts every sequence."""
    batch_sizes = layout.batch_sizes
    if enforce_sorted and batch_sizes.numel() and int(batch_sizes[0]) == layout.batch:
        return PackedSequence(data, batch_sizes)
    return PackedSequence(data, batch_sizes, layout.order.to(data.device), layout.slots.to(data.device))


def _slotted(lengths: Tensor, enforce_sorted: bool) -> Layout:
    """Layout of `lengths`; with `enforce_sorted`, checks that they are non-increasing and keeps their order."""
    if not enforce_sorted:
        return Layout(lengths)
    layout = Layout(
        lengths, order=torch.arange(lengths.numel(), device="cpu")
    )  # a sort may reorder equal lengths
    if layout.is_sorted:
        return layout
    i = int((lengths[1:] > lengths[:-1]).nonzero()[0, 0]) + 1
    raise RuntimeError(
        "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True, "
        f"but lengths[{i}] = {int(lengths[i])} is larger than lengths[{i - 1}] = {int(lengths[i - 1])}; "
        "pass `enforce_sorted=False` to have the sequences sorted"
    )


def _host_tensor(sizes: list[int]) -> Tensor:
    """`torch.tensor(sizes)`, int64, but in 1.4 us instead of 7.2 for 64 numbers."""
    return torch.from_numpy(np.array(sizes, np.int64))


def _back_to_back(
    name: str, sequences: Iterable[Tensor], no_tensor: type[Exception]
) -> tuple[Tensor | list[Tensor], list[int]]:
    """The rows of all sequences back to back, or the sequences themselves if copying costs more; their lengths."""
    parts = tuple(sequences)
    if not parts:
        raise RuntimeError(f"{name}: received an empty list of sequences")
    first = parts[0]
    try:
        sizes = [part.size(0) for part in parts]
        if (
            not torch.compiler.is_compiling()
            and sum(sizes) * first[:0].stride(0) * first.element_size() >= len(parts) * _WORTH_A_LOOK
        ):
            shape, dtype, device = first.shape[1:], first.dtype, first.device
            if all(p.shape[1:] == shape and p.dtype is dtype and p.device == device for p in parts):
                return list(parts), sizes
        rows = torch.cat(parts)
    except (AttributeError, IndexError, RuntimeError, TypeError):
        # Each one is only checked now: 256 checks cost more than packing 256 short sequences.
        for i, part in enumerate(parts):
            _check_sequence(name, i, part, no_tensor)
        sizes = [part.size(0) for part in parts]
    else:
        # torch.cat promotes dtypes, and ignores (0,) whatever the other shapes are.
        if rows.dtype == first.dtype and rows.device == first.device and 0 not in sizes:
            return rows, sizes
    return torch.cat([_like_first(name, i, part, first) for i, part in enumerate(parts)]), sizes


def _are_alike(parts: tuple[Tensor, ...]) -> bool:
    """Whether all have one dtype and one shape but for their length, and take little memory when they are padded."""
    first = parts[0]
    if first.dim() == 0 or any(
        part.dtype != first.dtype or part.shape[1:] != first.shape[1:] for part in parts
    ):
        return False
    return len(parts) * max(part.nbytes for part in parts) <= _LITTLE


def _placed(rows: Tensor | list[Tensor], to: RowMap, fill: Any = 0) -> Tensor:
    return move_rows(rows, to, fill=fill) if isinstance(rows, Tensor) else join_rows(rows, to, fill=fill)


def _fills_large_pages(parts: tuple[Any, ...]) -> bool:
    """Whether the padded batch is so large that the first access to small pages takes most of the time."""
    return len(parts) * max((getattr(part, "nbytes", 0) for part in parts), default=0) >= _LARGE


def _takes_gradients(parts: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(getattr(part, "requires_grad", False) for part in parts)


def _check_sequence(name: str, i: int, part: Any, no_tensor: type[Exception]) -> None:
    if not isinstance(part, Tensor):
        raise no_tensor(f"{name}: sequences[{i}] must be a tensor (length, *), got {type(part).__name__}")
    if part.dim() == 0:
        # torch.nn.utils.rnn.pad_sequence checks the first in another way than the others.
        kind = RuntimeError if name == "pad_sequence" and i == 0 else IndexError
        raise kind(f"{name}: sequences[{i}] must be a tensor (length, *), got a scalar")


def _like_first(name: str, i: int, part: Tensor, first: Tensor) -> Tensor:
    """`part` with the dtype, device and trailing shape of the first sequence, as torch's copy_ would convert it."""
    part = part.to(device=first.device, dtype=first.dtype)
    if part.shape[1:] == first.shape[1:]:
        return part
    try:
        return part.expand(part.shape[0], *first.shape[1:])
    except RuntimeError:
        raise RuntimeError(
            f"{name}: sequences[{i}] has shape {tuple(part.shape)}, whose trailing dimensions do not match "
            f"those of sequences[0], {tuple(first.shape)}"
        ) from None


def _check_packed_sequence(name: str, sequence: Any) -> None:
    if not isinstance(sequence, PackedSequence):
        hint = "; a Packed has methods of its own: .pad(), .unpack()" if isinstance(sequence, Packed) else ""
        raise AttributeError(f"{name}: expected a PackedSequence, got {type(sequence).__name__}{hint}")


def _grid_shape(name: str, grid: Tensor, batch_first: bool) -> tuple[int, int]:
    """B and T of a padded batch."""
    if grid.dim() < 2:
        axes = "(B, T, *)" if batch_first else "(T, B, *)"
        raise IndexError(f"{name} must be {axes}, got shape {tuple(grid.shape)}")
    return (grid.shape[0], grid.shape[1]) if batch_first else (grid.shape[1], grid.shape[0])


def _grid(cells: Tensor, batch: int, steps: int, batch_first: bool) -> Tensor:
    return cells.view(*((batch, steps) if batch_first else (steps, batch)), *cells.shape[1:])
