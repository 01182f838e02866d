"""Index arithmetic of ragged batches, on the host; independent of data and autograd.

The same N rows occur in three orders:

back to back   sequence after sequence: row (t, b) is at ``offsets[b] + t``
time-major     torch's packed order: step after step, the longest sequence first
padded         a grid of B times T cells, of which only N are rows

The *slot* of a sequence is its position by length, longest first, so that the sequences still running at
step t are always the first ``batch_sizes[t]`` slots.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor, peek_interpreter_stack
from torch.nn import functional

from ..errors import LengthsError
from .checks import as_numbers
from .rows import RowMap, index_dtype
from .walks import Places, Walk, arranged

__all__ = ["HostLayout", "Layout", "Numbers", "cached", "computed", "slot_steps"]

# The arithmetic uses NumPy: an operation on a few hundred numbers takes 0.1 to 0.8 us, but 1 to 3 us in torch. Compiled
# programs use torch, because only Dynamo can trace NumPy, and non-strict `torch.export` does without Dynamo.
Numbers = NDArray[np.signedinteger[Any]]
T = TypeVar("T")
_FAKE = torch._C._TorchDispatchModeKey.FAKE


class cached(Generic[T]):  # noqa: N801 a decorator
    """A property that is computed when it is first read, and kept unless `computed` says otherwise.

    In Python 3.10 and 3.11 `functools.cached_property` takes a lock, which Dynamo cannot trace.
    """

    def __init__(self, work: Callable[[Any], T]) -> None:
        self.work = work
        self.name = work.__name__
        self.__doc__ = work.__doc__

    def __get__(self, instance: Any, owner: type) -> T:
        value, may_be_kept = computed(self.work, instance)
        if may_be_kept:
            instance.__dict__[self.name] = value  # shadows this descriptor from now on
        return value


def computed(work: Callable[..., T], *args: Any) -> tuple[T, bool]:
    """`work(*args)`, whose tensors are plain ones if possible, and whether it may be kept for later calls.

    Tensors created in inference mode cannot be saved by autograd, those created inside a transform of `torch.func`
    are wrapped by it, and fake ones have no values.
    """
    # In this order, because Dynamo cannot trace the other checks.
    if torch.compiler.is_compiling() or not (
        torch.is_inference_mode_enabled()
        or peek_interpreter_stack() is not None
        or torch._C._len_torch_dispatch_stack()
    ):
        return work(*args), True
    with torch.inference_mode(False), torch._C._DisableFuncTorch():
        return work(*args), torch._C._get_dispatch_mode(_FAKE) is None


class Layout:
    """B lengths, and everything that follows from them; computed once, never changed.

    `lengths` are trusted: they come from `checks.as_lengths`. `order` is given if a
    `PackedSequence` or the caller has fixed the slots; otherwise it follows from the lengths.
    """

    def __init__(self, lengths: Tensor, *, order: Tensor | None = None) -> None:
        self.lengths = lengths  # (B,) int64, host
        if order is not None:
            vars(self)["order"] = order

    @classmethod
    def of_batch_sizes(cls, batch_sizes: Tensor, order: Tensor, slots: Tensor, *, rows: int) -> Layout:
        """The layout with `batch_sizes (T,)`, the sequence in each slot and the slot of each sequence, `(B,)`.

        All arguments are trusted. Slots beyond `batch_sizes[0]` have length 0.
        """
        sizes = as_numbers(batch_sizes)
        # Steps with B, ..., 2, 1 sequences. Two slices, because Dynamo's NumPy takes [:0:-1] for [::-1].
        ends = np.bincount(sizes, minlength=order.numel() + 1)[1:][::-1]
        lengths = torch.from_numpy(ends.cumsum()[::-1][as_numbers(slots)])
        return cls.of_slots(lengths, batch_sizes, order, slots, rows=rows)

    @classmethod
    def of_slots(
        cls, lengths: Tensor, batch_sizes: Tensor, order: Tensor, slots: Tensor, *, rows: int
    ) -> Layout:
        """`of_batch_sizes` with known lengths `(B,)`."""
        # A copy: the caller's tensor may change, and the kernels read contiguous numbers.
        order, slots, batch_sizes = (
            numbers.clone(memory_format=torch.contiguous_format) for numbers in (order, slots, batch_sizes)
        )
        layout = cls(lengths, order=order)
        vars(layout).update(slots=slots, batch_sizes=batch_sizes, steps=batch_sizes.shape[0], rows=rows)
        return layout

    def _is_compiled(self) -> bool:
        """Whether `torch.compile` is tracing, so that data-dependent results come from `layout.operators`."""
        return torch.compiler.is_compiling()

    @cached
    def batch(self) -> int:
        """B, the number of sequences, including those of length 0."""
        return self.lengths.numel()

    @cached
    def rows(self) -> int:
        """N, the number of rows: the sum of the lengths."""
        if self._is_compiled():
            rows = cast(int, self.offsets[-1].item())  # non-strict export cannot trace `int`
            torch._check(rows >= 0)
            return rows
        return int(self._offsets[-1])

    @cached
    def steps(self) -> int:
        """T, the longest length."""
        if self._is_compiled():
            return self.batch_sizes.shape[0]
        return int(self._lengths.max(initial=0))

    @cached
    def offsets(self) -> Tensor:
        """`(B+1,)` the start of each sequence in back-to-back order, and N."""
        if self._is_compiled():
            return functional.pad(self.lengths.cumsum(0), (1, 0))
        return torch.from_numpy(self._offsets)

    @cached
    def owners(self) -> Tensor:
        """`(N,)` the sequence of each back-to-back row."""
        if self._is_compiled():
            return torch.ops.padless.row_owners(self.lengths, self.rows)
        return torch.from_numpy(np.arange(self.batch).repeat(self._lengths))

    def ranges(self, begins: Tensor) -> Tensor:
        """`begins[i], begins[i] + 1, ...` for the rows of sequence i, `(N,)`; `begins (B,)` is int64 on the host."""
        if self._is_compiled():
            return torch.arange(self.rows, device="cpu") + (begins - self.offsets[:-1])[self.owners]
        shift = as_numbers(begins) - self._offsets[:-1]
        return torch.from_numpy(np.arange(self.rows) + shift.repeat(self._lengths))

    def placed(self, begins: Tensor, count: int) -> RowMap:
        """From back-to-back rows to the rows `begins[i], begins[i] + 1, ...` of `count`; for `merge_rows`."""

        def walk() -> Walk:
            back_to_back = Places(first=_plain(self.offsets))
            return Walk(_plain(self.lengths), self.steps, back_to_back, Places(first=_plain(begins)), False)

        return RowMap(
            None, lambda: self.ranges(begins), self.rows, count, has_fill=True, has_drop=False, walk=walk
        )

    @cached
    def _lengths(self) -> Numbers:
        return as_numbers(self.lengths)

    @cached
    def _offsets(self) -> Numbers:
        if "offsets" in vars(self):
            return as_numbers(self.offsets)
        offsets = np.zeros(self.lengths.shape[0] + 1, np.int64)
        self._lengths.cumsum(out=offsets[1:])
        return offsets

    @cached
    def _order(self) -> Numbers:
        return as_numbers(self.order)

    def on(self, device: torch.device, work: Callable[[Layout, torch.device], T]) -> T:
        """`work(self, device)`, a function of a module: called once per device, since a copy to a device waits."""
        if torch.compiler.is_compiling():
            return work(self, device)
        known: dict[Any, T] = vars(self).setdefault("_on_devices", {})
        key = device, work
        if key in known:
            return known[key]
        found, may_be_kept = computed(work, self, device)
        if may_be_kept:
            known[key] = found
        return found

    @cached
    def nested_offsets(self) -> dict[torch.device, Tensor]:
        """The offsets tensor that nested tensors of this layout share, by device.

        torch treats two nested tensors as equally ragged only if they share one offsets tensor, so a
        layout keeps the one it was created with or has handed out.
        """
        return {}

    @cached
    def order(self) -> Tensor:
        """`(B,)` the sequence in each slot: longest first, ties as torch's own packing breaks them."""
        return torch.sort(self.lengths, descending=True)[1]

    @cached
    def slots(self) -> Tensor:
        """`(B,)` the slot of each sequence: the inverse of `order`."""
        if self._is_compiled():
            return torch.argsort(self.order)
        if self._arrange():
            return vars(self)["slots"]
        slots = np.empty(self.batch, np.int64)
        slots[self._order] = np.arange(self.batch)
        return torch.from_numpy(slots)

    def _arrange(self) -> bool:
        """Compute slots, offsets and batch sizes in one call of the library; False if it may not be called."""
        known = vars(self)
        if "slots" in known and "offsets" in known and "batch_sizes" in known:
            return True
        found = arranged(self.lengths, self.order, self.steps)
        if found is None:
            return False
        for name, numbers in zip(("slots", "offsets", "batch_sizes"), found, strict=True):
            known.setdefault(name, numbers)
        return True

    @cached
    def is_sorted(self) -> bool:
        """Whether the caller's order is already longest first."""
        lengths = self._lengths
        return not np.count_nonzero(lengths[1:] > lengths[:-1])

    @cached
    def batch_sizes(self) -> Tensor:
        """`(T,)` how many sequences are still running at each step."""
        if self._is_compiled():
            return torch.ops.padless.batch_sizes(self.lengths)
        if self._arrange():
            return vars(self)["batch_sizes"]
        ended = np.bincount(self._lengths, minlength=1)[:-1]  # by length; none continues after T
        return torch.from_numpy(self.batch - ended.cumsum())

    @cached
    def time_major(self) -> RowMap:
        """From back-to-back rows to time-major rows."""
        if self._is_compiled():
            return RowMap.permutation(self._traced_time_major(), self.rows)
        self._arrange()
        # The recipes must not refer to the layout, which keeps the map: only the garbage collector frees cycles.
        lengths, steps, rows, offsets = self.lengths, self.steps, self.rows, self._offsets
        order, slots, sizes = self._order, self.slots, self.batch_sizes

        def walk() -> Walk:
            back_to_back = Places(first=_plain(torch.from_numpy(offsets)))
            return Walk(_plain(lengths), steps, back_to_back, _time_major_places(slots, sizes), False)

        return RowMap.permutation(lambda: _along_steps(sizes, offsets[order], 1, rows), rows, walk)

    def _traced_time_major(self) -> Tensor:
        """The back-to-back row of each time-major row, `(N,)`, in a compiled program."""
        step = torch.ops.padless.row_owners(self.batch_sizes, self.rows)
        slot = torch.arange(self.rows, device="cpu") - (self.batch_sizes.cumsum(0) - self.batch_sizes)[step]
        return self.offsets[self.order[slot]] + step

    def padded(self, total_length: int, *, batch_first: bool, left: bool = False) -> RowMap:
        """From back-to-back rows to the cells of a padded grid; cells without a row are filled."""
        count = total_length * self.batch
        if self._is_compiled():
            given = self.lengths, total_length, batch_first, left
            rows_of, cells_of = torch.ops.padless.padded_rows, torch.ops.padless.padded_cells
            return RowMap.padding(lambda: rows_of(*given), lambda: cells_of(*given), self.rows, count)

        def row_of_cell() -> Numbers:
            offsets, before = self._offsets, self._cells_before(total_length, left)
            dtype = index_dtype(self.rows + total_length)
            start, end, shift = (ends.astype(dtype) for ends in (offsets[:-1], offsets[1:], before))
            step = np.arange(total_length, dtype=dtype)
            if batch_first:
                start, end, shift = start[:, None], end[:, None], shift[:, None]
            else:
                step = step[:, None]
            row = step + (start - shift)
            row[row < start if left else row >= end] = self.rows
            return row.reshape(-1)

        def cell_of_row() -> Numbers:
            step_stride, sequence_stride = self.cell_strides(total_length, batch_first)
            dtype = index_dtype(count)
            lengths, offsets, before = self._lengths, self._offsets, self._cells_before(total_length, left)
            first = np.arange(self.batch) * sequence_stride + (before - offsets[:-1]) * step_stride
            cell = first.astype(dtype).repeat(lengths)
            cell += np.arange(0, self.rows * step_stride, step_stride, dtype=dtype)
            return cell

        def walk() -> Walk:
            cells, back_to_back = (
                self._cell_places(total_length, batch_first),
                Places(first=_plain(self.offsets)),
            )
            return Walk(_plain(self.lengths), total_length, back_to_back, cells, left)

        return RowMap.padding(row_of_cell, cell_of_row, self.rows, count, walk)

    def padded_time_major(self, total_length: int, *, batch_first: bool) -> RowMap:
        """From time-major rows to the cells of a padded grid; cells without a row are filled."""
        count = total_length * self.batch
        if not self._is_compiled():
            _ = self.batch_sizes  # and slots and offsets with them

        def row_of_cell() -> Numbers:
            dtype = index_dtype(self.rows + self.batch)
            size = np.zeros(total_length, dtype)
            size[: self.steps] = as_numbers(self.batch_sizes)
            start = size.cumsum(dtype=dtype)
            start -= size
            slot = as_numbers(self.slots).astype(dtype)
            if batch_first:
                slot = slot[:, None]
            else:
                start, size = start[:, None], size[:, None]
            row = start + slot
            row[slot >= size] = self.rows
            return row.reshape(-1)

        def cell_of_row() -> Numbers:
            step_stride, sequence_stride = self.cell_strides(total_length, batch_first)
            return _along_steps(self.batch_sizes, self._order * sequence_stride, step_stride, count)

        def walk() -> Walk:
            cells, packed = (
                self._cell_places(total_length, batch_first),
                _time_major_places(self.slots, self.batch_sizes),
            )
            return Walk(_plain(self.lengths), total_length, packed, cells, False)

        return RowMap.padding(row_of_cell, cell_of_row, self.rows, count, walk)

    def _cell_places(self, total_length: int, batch_first: bool) -> Places:
        step, sequence = self.cell_strides(total_length, batch_first)
        return Places(step=step, sequence=sequence)

    def _cells_before(self, total_length: int, left: bool) -> Numbers:
        """How many cells of each sequence of a padded grid come before its first row."""
        return total_length - self._lengths if left else np.zeros_like(self._lengths)

    def cell_strides(self, total_length: int, batch_first: bool) -> tuple[int, int]:
        """The distance in cells between two steps and between two sequences; 1 in an empty batch."""
        return (1, total_length) if batch_first else (max(self.batch, 1), 1)

    def check_rows(self, count: int) -> None:
        """Raise LengthsError unless the lengths sum to `count`; a compiled program raises RuntimeError when it runs."""
        if self._is_compiled():
            message = "the lengths do not sum to the rows of the data"
            torch.ops.aten._assert_async.msg(self.lengths.sum() == count, message)
            vars(self)["rows"] = count
        elif self.rows != count:
            raise LengthsError(f"lengths sum to {self.rows}, but the data have {count} rows")

    def agrees_with(self, other: Layout) -> bool:
        """Whether the lengths are equal; a compiled program compares them at run time and raises RuntimeError."""
        if self is other or not self._is_compiled():
            return self == other
        if self.lengths.shape[0] != other.lengths.shape[0]:
            return False
        is_same = (self.lengths == other.lengths).all()
        torch.ops.aten._assert_async.msg(is_same, "two batches have different lengths")
        return True

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Layout):
            return NotImplemented
        return self is other or torch.equal(self.lengths, other.lengths)

    def __hash__(self) -> int:
        return hash((self.batch, tuple(self.lengths[:16].tolist())))

    def __repr__(self) -> str:
        return f"Layout(B={self.batch}, N={self.rows}, T={self.steps})"

    def __reduce__(self) -> tuple[type[Layout], tuple[Tensor]]:
        return (Layout, (self.lengths,))


class HostLayout(Layout):
    """The layout inside an operator, which works with values even while `torch.compile` is tracing."""

    def _is_compiled(self) -> bool:
        return False


def _along_steps(batch_sizes: Tensor, first: Numbers, stride: int, count: int) -> Numbers:
    """`first[slot] + stride * step` for each time-major row, in a dtype that holds numbers up to `count`."""
    dtype = index_dtype(count)
    sizes = as_numbers(batch_sizes)
    slot, step = _slots_and_steps(sizes, np.arange(0, sizes.size * stride, stride, dtype=dtype))
    place = first.astype(dtype)[slot]
    place += step
    return place


def _time_major_places(slots: Tensor, batch_sizes: Tensor) -> Places:
    return Places(first=_plain(slots), batch_sizes=_plain(batch_sizes))


def _plain(numbers: Tensor) -> Tensor:
    """`numbers`, int64 on the host, readable by the library; only outside transforms, which would wrap the copy."""
    if numbers.is_contiguous() and not is_functorch_wrapped_tensor(numbers):
        return numbers
    return torch.from_numpy(np.ascontiguousarray(as_numbers(numbers)))


def slot_steps(batch_sizes: Tensor) -> tuple[Tensor, Tensor]:
    """The slot and the step `(N,)` of every time-major row."""
    sizes = as_numbers(batch_sizes)
    slot, step = _slots_and_steps(sizes, np.arange(sizes.size))
    return torch.from_numpy(slot), torch.from_numpy(step)


def _slots_and_steps(sizes: Numbers, steps: Numbers) -> tuple[Numbers, Numbers]:
    """The slot of every time-major row, and the entry of `steps (T,)` for its step."""
    starts = sizes.cumsum() - sizes
    step = steps.repeat(sizes)
    slot = np.arange(step.size)
    slot -= starts.repeat(sizes)
    return slot, step
