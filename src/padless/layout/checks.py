"""Checks of lengths, offsets, batch sizes, indices, states and weights, and their error messages."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import LayoutError, LengthsError
from ..lengths import host_lengths

__all__ = [
    "as_lengths",
    "as_numbers",
    "check_batch_first",
    "check_batch_sizes",
    "check_inverse",
    "check_permutation",
    "check_state",
    "check_weights",
    "checked_fill",
    "checked_lengths",
    "checked_slots",
    "checked_total_length",
    "for_torch",
    "is_bool",
    "lengths_of_offsets",
    "traced_lengths",
    "whole_number",
]

_WHOLE_DTYPES = frozenset(
    {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.uint16, torch.uint32, torch.uint64}
)
_INT64_MAX = torch.iinfo(torch.int64).max


def check_batch_first(name: str, batch_first: Any) -> None:
    """Raise a TypeError of the function `name` unless the option is a bool."""
    if not isinstance(batch_first, bool):
        raise TypeError(f"{name}: batch_first must be bool, not {type(batch_first).__name__}")


def whole_number(name: str, value: Any) -> int:
    """`value` as an integer; otherwise, also for True and False, raise a TypeError that names the argument."""
    try:
        number = None if is_bool(value) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__}")
    return number


def checked_total_length(name: str, total_length: Any, steps: int) -> int:
    """`total_length` as an integer; raises torch's ValueError if it is below the longest length, `steps`."""
    total_length = whole_number(name, total_length)
    if total_length < steps:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, "
            f"but got total_length={total_length} and max sequence length being {steps}"
        )
    return total_length


def is_bool(value: Any) -> bool:
    """Whether `value` is True or False, of Python, NumPy or torch; `options.is_boolean` for compiled programs."""
    return isinstance(value, (bool, np.bool_)) or (isinstance(value, Tensor) and value.dtype == torch.bool)


def as_lengths(
    lengths: Any, *, batch: int | None = None, steps: int | None = None, name: str = "lengths"
) -> Tensor:
    """Lengths as a new int64 tensor `(B,)` on the host.

    Args:
        lengths: list, tuple, NumPy array or tensor `(B,)` on any device, of whole numbers.
            A tensor on a device is copied to the host here, once.
        batch: the number of sequences, if the data determine it.
        steps: the largest possible length, if the data determine it.
        name: the argument's name in error messages.

    Raises:
        LengthsError: a wrong number or kind of lengths, or one that is negative, not whole or too long.
    """
    if torch.compiler.is_compiling():
        return torch.ops.padless.checked_lengths(traced_lengths(lengths, batch=batch, name=name), steps)
    return checked_lengths(lengths, batch=batch, steps=steps, name=name)


def checked_lengths(
    lengths: Any, *, batch: int | None = None, steps: int | None = None, name: str = "lengths"
) -> Tensor:
    """`as_lengths` for known values, even while `torch.compile` is tracing."""
    values = _as_host_tensor(lengths, name)
    if values.dim() != 1:
        raise LengthsError(f"{name} must be one-dimensional, (B,), got shape {tuple(values.shape)}")
    if batch is not None and values.numel() != batch:
        hint = f"; is batch_first wrong? The steps are {steps}" if values.numel() == steps else ""
        raise LengthsError(f"{name} has {values.numel()} entries for a batch of {batch}{hint}")
    result = _as_whole(values, name)
    if result.numel() == 0:
        return result
    shortest, longest = _extremes(result)
    if shortest < 0:
        i = _first(result < 0)
        raise LengthsError(f"{name}[{i}] = {int(result[i])} is negative")
    if steps is not None and longest > steps:
        i = _first(result > steps)
        raise LengthsError(f"{name}[{i}] = {int(result[i])} is longer than the padded input (T = {steps})")
    if longest > _INT64_MAX // 2 // result.numel() and sum(result.tolist()) > _INT64_MAX // 2:
        i = int(result.argmax())
        raise LengthsError(f"{name}[{i}] = {int(result[i])} is too large: the sum overflows")
    return result


def _extremes(numbers: Tensor) -> tuple[int, int]:
    if numbers.numel() <= 1024:  # a short list is faster than two reductions
        few = numbers.tolist()
        return min(few), max(few)
    low, high = torch.aminmax(numbers)
    return int(low), int(high)


def traced_lengths(lengths: Any, *, batch: int | None = None, name: str = "lengths") -> Tensor:
    """`lengths` as a tensor `(B,)` in a compiled program, which checks their values at every call.

    Raises:
        LengthsError: a wrong number of lengths.
    """
    if isinstance(lengths, (list, tuple)):
        dtype = torch.float64 if any(isinstance(n, float) for n in lengths) else None
        # Dynamo cannot trace as_tensor of a list of tensors.
        lengths = torch.tensor(lengths, dtype=dtype, device="cpu")
    elif not isinstance(lengths, Tensor):
        lengths = torch.as_tensor(lengths, device="cpu")
    if lengths.dim() != 1:
        raise LengthsError(f"{name} must be one-dimensional, (B,), got shape {tuple(lengths.shape)}")
    if batch is not None and lengths.shape[0] != batch:
        raise LengthsError(f"{name} has {lengths.shape[0]} entries for a batch of {batch}")
    return lengths


def _as_host_tensor(lengths: Any, name: str) -> Tensor:
    if isinstance(lengths, Tensor):
        if lengths.is_meta:
            raise LengthsError(f"{name} is on the meta device, which holds no values")
        return lengths.detach().cpu()  # synchronises if lengths are on a device
    if not isinstance(lengths, (list, tuple)) and hasattr(lengths, "__array__"):
        values = np.asarray(lengths)
        is_masked = np.ma.is_masked(lengths)
        if values.dtype != object and not is_masked:  # otherwise a nullable or mixed column
            return _of_array(values, name)
        lengths = lengths.tolist() if is_masked else values.tolist()  # None where masked, which is refused
    # One by one, so that large numbers are not rounded, and the error can name a wrong one.
    if not isinstance(lengths, (list, tuple)) or not all(type(number) is int for number in lengths):
        lengths = host_lengths(lengths, name=name)
    try:
        return torch.from_numpy(np.array(lengths, np.int64))
    except OverflowError:
        i = next(i for i, number in enumerate(lengths) if not -(2**63) <= number < 2**63)
        raise LengthsError(f"{name}[{i}] = {lengths[i]} is too large") from None


def _of_array(values: NDArray[Any], name: str) -> Tensor:
    try:
        return torch.as_tensor(for_torch(values), device="cpu")
    except TypeError as error:
        raise LengthsError(f"{name} must be whole numbers: {error}") from error


def for_torch(values: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy if torch cannot share it: of another byte order, not contiguous or read-only."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return native if native.flags.carray else native.copy()


def _as_whole(values: Tensor, name: str) -> Tensor:
    """`values` as a new int64 tensor; raises for values that int64 cannot hold."""
    if values.dtype in _WHOLE_DTYPES:
        result = values.to(torch.int64, copy=True)
        if values.dtype == torch.uint64 and bool((result < 0).any()):
            i = _first(result < 0)
            raise LengthsError(f"{name}[{i}] = {values[i].item()} is too large")
        return result
    if not values.is_floating_point():
        raise LengthsError(f"{name} must be whole numbers, got dtype {values.dtype}")
    wide = values.to(torch.float64)
    whole = torch.isfinite(wide) & (wide == wide.floor())
    if not bool(whole.all()):
        i = _first(~whole)
        raise LengthsError(f"{name}[{i}] = {wide[i].item()} is not a whole number")
    if bool((wide.abs() >= 2.0**63).any()):
        i = _first(wide.abs() >= 2.0**63)
        raise LengthsError(f"{name}[{i}] = {wide[i].item()} is too large")
    return wide.to(torch.int64)


def as_numbers(whole: Tensor) -> NDArray[np.int64]:
    """`whole`, int64 on the host, for NumPy: the same memory, but a copy inside `torch.func` transforms.

    Transforms wrap every tensor created inside them, and wrapped tensors cannot be read in place.
    """
    try:
        return whole.numpy()
    except RuntimeError:
        return np.array(whole.tolist(), np.int64)


def checked_fill(name: str, data: Tensor, padding_value: Any) -> Any:
    """`padding_value` as a Python number that the dtype of `data` can represent.

    Raises:
        TypeError: not a number.
        RuntimeError: the dtype cannot represent the number; all floating-point dtypes can represent infinity.
    """
    if isinstance(padding_value, Tensor) and padding_value.dim() == 0:
        padding_value = padding_value.item()
    if not isinstance(padding_value, (bool, int, float, complex)):
        raise TypeError(f"{name}: padding_value must be a number, not {type(padding_value).__name__}")
    dtype, fill = data.dtype, padding_value
    if type(fill) is float and (dtype is torch.float32 or dtype is torch.float64):
        return fill  # as in torch, a number too large for float32 becomes infinity
    try:
        # torch accepts a double or a 64-bit integer.
        if isinstance(fill, int) and abs(fill) >= 2**63:
            fill = float(fill)
        data.new_full((), fill)
    except (OverflowError, RuntimeError) as error:
        raise RuntimeError(f"{name}: padding_value = {padding_value}: {error}") from None
    is_narrow = dtype.is_floating_point and dtype.itemsize < 4
    # `new_full` converts both silently, but torch's padding functions raise.
    if (is_narrow and torch.finfo(dtype).max < abs(fill) < math.inf) or (
        dtype is torch.int64 and fill == 2.0**63
    ):
        raise RuntimeError(
            f"{name}: padding_value = {padding_value}: value cannot be converted to {dtype} without overflow"
        )
    return fill


def check_batch_sizes(batch_sizes: Tensor, *, rows: int) -> int:
    """The number of sequences at the first step of `batch_sizes (T,)`.

    Raises:
        LayoutError: they are not int64 on the host, positive, non-increasing, or do not sum to `rows`.
    """
    if not isinstance(batch_sizes, Tensor):
        raise LayoutError(f"batch_sizes must be a tensor, got {type(batch_sizes).__name__}")
    if batch_sizes.device.type != "cpu" or batch_sizes.dtype != torch.int64:
        raise LayoutError(
            f"batch_sizes must be an int64 tensor on the CPU, got {batch_sizes.dtype} on {batch_sizes.device}"
        )
    if batch_sizes.dim() != 1:
        raise LayoutError(f"batch_sizes must be one-dimensional, (T,), got shape {tuple(batch_sizes.shape)}")
    # Lists, not arrays: they need little code, which is ten times faster after a kernel has evicted the caches.
    sizes = batch_sizes.tolist()
    if not sizes:
        first = total = 0
    elif sizes != sorted(sizes, reverse=True):
        t = next(t for t in range(1, len(sizes)) if sizes[t] > sizes[t - 1])
        raise LayoutError(
            f"batch_sizes[{t}] = {sizes[t]} is larger than "
            f"batch_sizes[{t - 1}] = {sizes[t - 1]}: batch sizes must be non-increasing"
        )
    elif sizes[-1] <= 0:
        t = next(t for t, size in enumerate(sizes) if size <= 0)
        raise LayoutError(f"batch_sizes[{t}] = {sizes[t]} is not positive")
    else:
        first, total = sizes[0], sum(sizes)
        if first > rows:
            raise LayoutError(f"batch_sizes[0] = {first} is larger than the data ({rows} rows)")
    if total != rows:
        raise LayoutError(f"batch_sizes sum to {total}, but the data have {rows} rows")
    return first


def check_permutation(indices: Tensor, *, at_least: int, name: str) -> None:
    """Raise LayoutError unless `indices (B,)` is an int64 permutation of 0..B-1 with B >= `at_least`."""
    if not isinstance(indices, Tensor) or indices.dtype != torch.int64 or indices.dim() != 1:
        kind = (
            f"{indices.dtype} {tuple(indices.shape)}"
            if isinstance(indices, Tensor)
            else type(indices).__name__
        )
        raise LayoutError(f"{name} must be an int64 tensor (B,), got {kind}")
    count = indices.numel()
    if count < at_least:
        raise LayoutError(f"{name} has {count} entries for {at_least} sequences")
    host = indices.tolist()  # synchronises if the batch is on a device
    if len(set(host)) == count and min(host, default=0) >= 0 and max(host, default=-1) < count:
        return
    for i, sequence in enumerate(host):
        if not 0 <= sequence < count:
            raise LayoutError(f"{name}[{i}] = {sequence} is outside 0..{count - 1}")
    ordered = sorted(host)
    twice = next(s for s, after in pairwise(ordered) if s == after)
    raise LayoutError(f"{name} names sequence {twice} more than once")


def checked_slots(
    batch_sizes: Tensor, sorted_indices: Tensor | None, unsorted_indices: Tensor | None, *, rows: int
) -> tuple[Tensor, Tensor]:
    """The sequence in each slot and the slot of each sequence, `(B,)` each, of the fields of a `PackedSequence`.

    Raises:
        LayoutError: one of the fields is invalid, or the indices are not inverse.
    """
    running = check_batch_sizes(batch_sizes, rows=rows)
    if sorted_indices is not None:
        check_permutation(sorted_indices, at_least=running, name="sorted_indices")
        order = sorted_indices.detach().cpu()  # synchronises if the batch is on a device
        if unsorted_indices is None:
            return order, torch.argsort(order)
        check_inverse(unsorted_indices, order)
        return order, unsorted_indices.detach().cpu()
    if unsorted_indices is not None:
        check_permutation(unsorted_indices, at_least=running, name="unsorted_indices")
        slots = unsorted_indices.detach().cpu()
        return torch.argsort(slots), slots
    order = torch.arange(running, device="cpu")
    return order, order


def check_inverse(unsorted_indices: Tensor, sorted_indices: Tensor) -> None:
    """Raise LayoutError unless `unsorted_indices (B,)` is the inverse of `sorted_indices`, which is already checked."""
    order = sorted_indices.tolist()
    is_list = isinstance(unsorted_indices, Tensor) and unsorted_indices.dim() == 1
    if not is_list or unsorted_indices.dtype != torch.int64:
        check_permutation(unsorted_indices, at_least=len(order), name="unsorted_indices")
    places = unsorted_indices.tolist()  # synchronises if the batch is on a device
    if len(places) == len(order) and [places[sequence] for sequence in order] == list(range(len(order))):
        return
    check_permutation(unsorted_indices, at_least=len(order), name="unsorted_indices")
    if len(places) != len(order):
        raise LayoutError(f"unsorted_indices has {len(places)} entries, sorted_indices has {len(order)}")
    k, sequence = next((k, s) for k, s in enumerate(order) if places[s] != k)
    raise LayoutError(
        f"unsorted_indices is not the inverse of sorted_indices: "
        f"sorted_indices[{k}] = {sequence}, but unsorted_indices[{sequence}] is not {k}"
    )


def lengths_of_offsets(offsets: Any, *, rows: int) -> Tensor:
    """Lengths `(B,)`, int64 on the host, of the sequences that `offsets (B+1,)` cut `rows` rows into.

    Raises:
        LayoutError: offsets that do not start at 0, that decrease, or that do not end at `rows`.
    """
    try:
        starts = as_lengths(offsets, name="offsets")
    except LengthsError as error:
        raise LayoutError(str(error)) from None
    if starts.shape[0] == 0:
        raise LayoutError("offsets must have B+1 entries, at least one, got none")
    if torch.compiler.is_compiling():
        is_right = (starts[0] == 0) & (starts.diff() >= 0).all() & (starts[-1] == rows)
        torch.ops.aten._assert_async.msg(
            is_right, "offsets must start at 0, never decrease and end at the rows of the data"
        )
        return starts.diff()
    if int(starts[0]) != 0:
        raise LayoutError(f"offsets[0] = {int(starts[0])}, but the first sequence starts at 0")
    lengths = starts.diff()
    if bool((lengths < 0).any()):
        i = _first(lengths < 0) + 1
        raise LayoutError(
            f"offsets[{i}] = {int(starts[i])} is smaller than offsets[{i - 1}] = {int(starts[i - 1])}"
        )
    if int(starts[-1]) != rows:
        raise LayoutError(f"offsets end at {int(starts[-1])}, but the data have {rows} rows")
    return lengths


def _first(mask: Tensor) -> int:
    return int(mask.nonzero()[0, 0])


def check_state(
    state: Tensor, shape: tuple[int, ...], rows: Tensor, name: str, *, any_dtype: bool = False
) -> None:
    """Raise RuntimeError, with torch's text, unless an initial state has this shape and the rows' dtype and device."""
    if state.shape != shape:
        raise RuntimeError(f"Expected {name} size {shape}, got {list(state.shape)}")
    if state.layout != torch.strided:
        raise RuntimeError(f"{name} must be a dense tensor, got layout {state.layout}")
    if state.dtype != rows.dtype and not any_dtype:
        raise RuntimeError(f"{name} has dtype {state.dtype}, but the input has {rows.dtype}")
    if state.device != rows.device:
        raise RuntimeError(f"{name} is on {state.device}, but the input is on {rows.device}")


def check_weights(
    weights: Sequence[Any], names: Sequence[str], shapes: Sequence[tuple[int, ...]], device: torch.device
) -> None:
    """Raise RuntimeError unless all flat weights are dense, of one dtype, of these shapes and on this device."""
    dtype = weights[0].dtype if isinstance(weights[0], Tensor) else None
    for weight, name, shape in zip(weights, names, shapes, strict=True):
        if not isinstance(weight, Tensor) or weight.layout != torch.strided:
            raise RuntimeError(f"{name} must be a dense tensor, got {type(weight).__name__}")
        if weight.shape != shape:
            raise RuntimeError(f"{name} must have shape {shape}, got {tuple(weight.shape)}")
        if weight.dtype != dtype:
            raise RuntimeError(f"{name} has dtype {weight.dtype}, but {names[0]} has {dtype}")
        if weight.device != device:
            raise RuntimeError(f"{name} is on {weight.device}, but the input is on {device}")
