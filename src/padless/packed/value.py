"""`Packed`: B sequences back to back, as an immutable pair of data and layout."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import LengthsError
from ..layout.checks import as_lengths, check_batch_first, lengths_of_offsets
from ..layout.layout import Layout
from ..layout.rows import move_rows
from .arithmetic import Arithmetic
from .arrow import arrow_of_rows, rows_of_arrow
from .indexing import gather_sequences, one_sequence, slice_sequences
from .nested import nested_of_rows, rows_of_nested
from .packed_sequence import layout_of_packed_sequence, packed_sequence_of_rows
from .padding import pad_rows, row_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Packed"]


# A dataclass because DDP finds the tensors of an output in the fields of dataclasses, and FSDP with mixed precision
# replaces them. So the fields are the arguments of `__init__`.
@dataclass(init=False, repr=False, eq=False)
class Packed(Arithmetic):
    """B sequences of different lengths without padding: rows `(N, *)` back to back, and B lengths.

    Immutable: its lengths never change and its attributes cannot be set. Its rows are an ordinary tensor, part of
    the autograd graph. `==` compares identity; to compare values, compare `.data` and `.lengths`.

    Args:
        data: `(N, *)`, sequence after sequence, any dtype and device; not copied.
        lengths: B whole numbers that sum to N: list, tuple, NumPy array or tensor on any device.

    Raises:
        LengthsError: lengths that are not whole, are negative, or do not sum to N.
        TypeError, ValueError: data that are not a tensor `(N, *)`.

    >>> packed = Packed(torch.arange(6), [3, 1, 2])
    >>> packed
    Packed(B=3, N=6, T=3, fill=0.67, shape=(6,), dtype=torch.int64)
    >>> packed[0], packed[-1]
    (tensor([0, 1, 2]), tensor([4, 5]))
    >>> (packed * 10).unpack()
    [tensor([ 0, 10, 20]), tensor([30]), tensor([40, 50])]
    """

    __slots__ = ("__weakref__", "_data", "_layout")
    __array_ufunc__ = None  # makes NumPy scalars defer to Packed instead of iterating over it

    if TYPE_CHECKING:
        _data: Tensor
        _layout: Layout
    else:
        data: Tensor
        lengths: Tensor

    def __init__(self, data: Tensor, lengths: Any) -> None:
        _check_rows(data)
        layout = Layout(as_lengths(lengths))
        layout.check_rows(data.shape[0])
        object.__setattr__(self, "_data", data)
        object.__setattr__(self, "_layout", layout)

    @classmethod
    def _of(cls, data: Tensor, layout: Layout) -> Packed:
        """The batch of `data (N, *)` and `layout`, without checks."""
        packed = object.__new__(cls)
        object.__setattr__(packed, "_data", data)
        object.__setattr__(packed, "_layout", layout)
        return packed

    @classmethod
    def from_offsets(cls, data: Tensor, offsets: Any) -> Packed:
        """The batch whose sequence i is `data[offsets[i] : offsets[i + 1]]`; the data are not copied.

        Args:
            data: `(N, *)`.
            offsets: B+1 whole numbers (elsewhere called `cu_seqlens`) that start at 0, never decrease, and end at N.

        Raises:
            LayoutError: offsets that break one of these rules; the message names the first that does.

        >>> Packed.from_offsets(torch.arange(6), [0, 3, 3, 6]).lengths
        tensor([3, 0, 3])
        """
        _check_rows(data)
        return cls._of(data, Layout(lengths_of_offsets(offsets, rows=data.shape[0])))

    @classmethod
    def from_packed_sequence(cls, sequence: PackedSequence) -> Packed:
        """The batch of a `PackedSequence`, in the caller's order, including sequences of length 0: a copy.

        Raises:
            LayoutError: invalid `batch_sizes` or indices, in a `PackedSequence` constructed directly.

        >>> sequence = torch.nn.utils.rnn.pack_sequence([torch.tensor([1, 2]), torch.tensor([3])])
        >>> Packed.from_packed_sequence(sequence).unpack()
        [tensor([1, 2]), tensor([3])]
        """
        if not isinstance(sequence, PackedSequence):
            raise TypeError(f"from_packed_sequence takes a PackedSequence, got {type(sequence).__name__}")
        layout = layout_of_packed_sequence(sequence)
        return cls._of(move_rows(sequence.data, layout.time_major.inverted()), layout)

    @classmethod
    def from_nested(cls, nested: Tensor) -> Packed:
        """The batch of a nested tensor of sequences `(len, *)`.

        The data are a view of a jagged tensor without holes; one with holes, or a strided one, is copied.

        Raises:
            TypeError: not a nested tensor.
            ValueError: a dimension other than the sequences' first is ragged.
            LayoutError: invalid offsets of a jagged tensor.

        >>> sequences = [torch.tensor([1, 2]), torch.tensor([3])]
        >>> nested = torch.nested.nested_tensor(sequences, layout=torch.jagged)
        >>> Packed.from_nested(nested).data
        tensor([1, 2, 3])
        """
        return cls._of(*rows_of_nested(nested))

    @classmethod
    def from_arrow(cls, array: Any) -> Packed:
        """The batch of an Arrow list array, one list per sequence, on the CPU.

        The data share Arrow's memory: do not write to them (`packed.map(torch.clone)` returns a writable copy).
        Booleans and arrays of several chunks are copied. Nested fixed-size lists become trailing dimensions.

        Args:
            array: `pyarrow.ListArray`, `LargeListArray`, `FixedSizeListArray`, or a `ChunkedArray` of them.

        Raises:
            ImportError: pyarrow is not installed (extra `arrow`).
            TypeError: not lists of numbers.
            ValueError: a sequence or a value is null.

        >>> import pyarrow
        >>> Packed.from_arrow(pyarrow.array([[1, 2], [], [3]])).lengths
        tensor([2, 0, 1])
        """
        return cls._of(*rows_of_arrow(array))

    @property
    def data(self) -> Tensor:
        """The rows `(N, *)`, sequence after sequence; not a copy."""
        return self._data

    @property
    def lengths(self) -> Tensor:
        """`(B,)` int64 on the data's device: a copy."""
        return self._layout.lengths.to(self._data.device, copy=True)

    @property
    def offsets(self) -> Tensor:
        """`(B+1,)` int64 on the data's device, the start of each sequence and N: a copy."""
        return self._layout.offsets.to(self._data.device, copy=True)

    @property
    def dtype(self) -> torch.dtype:
        """The data's dtype."""
        return self._data.dtype

    @property
    def device(self) -> torch.device:
        """The data's device."""
        return self._data.device

    def __len__(self) -> int:
        return self._layout.lengths.shape[0]  # a shape, which a compiler can read, unlike a cached property

    def __iter__(self) -> Iterator[Tensor]:
        return iter(self.unpack())

    @overload
    def __getitem__(self, index: int) -> Tensor: ...
    @overload
    def __getitem__(self, index: slice | list[int] | list[bool] | NDArray[Any] | Tensor) -> Packed: ...
    def __getitem__(self, index: Any) -> Tensor | Packed:
        """Sequence `index`, `(len, *)`, as a view; or a batch of several sequences.

        Args:
            index: a whole number from -B to B-1; a slice with any step (a view if the step is 1); or a list,
                NumPy array or tensor `(K,)` of whole numbers, in any order and with repetitions, or of B
                booleans (copies).

        Raises:
            IndexError: a number outside -B..B-1, or a wrong number of booleans.
            TypeError: an unsupported index.

        >>> packed = Packed(torch.arange(6), [3, 1, 2])
        >>> packed[1:].unpack()
        [tensor([3]), tensor([4, 5])]
        >>> packed[[2, 0, 2]].data
        tensor([4, 5, 0, 1, 2, 4, 5])
        """
        if isinstance(index, slice):
            return Packed._of(*slice_sequences(self._data, self._layout, index))
        if isinstance(index, list) or (hasattr(index, "ndim") and index.ndim > 0):
            return Packed._of(*gather_sequences(self._data, self._layout, index))
        return one_sequence(self._data, self._layout, index)

    def map(self, fn: Callable[[Tensor], Tensor]) -> Packed:
        """The batch of `fn(data)` with the same lengths; `fn` must keep the number of rows.

        Args:
            fn: any function or module from rows `(N, *)` to rows `(N, *)` that treats each row by itself.

        Raises:
            TypeError: `fn` returned something other than a tensor.
            LengthsError: `fn` changed the number of rows.

        >>> Packed(torch.zeros(6, 4), [3, 1, 2]).map(torch.nn.Linear(4, 7)).data.shape
        torch.Size([6, 7])
        """
        rows = fn(self._data)
        if not isinstance(rows, Tensor):
            raise TypeError(f"map: fn must return a tensor (N, *), got {type(rows).__name__}")
        if rows.dim() == 0 or rows.shape[0] != self._data.shape[0]:
            raise LengthsError(
                f"map: fn must keep the number of rows, N = {self._data.shape[0]}, "
                f"got shape {tuple(rows.shape)}"
            )
        return Packed._of(rows, self._layout)

    def to(self, *args: Any, **kwargs: Any) -> Packed:
        """The batch with its data on another device or of another dtype; arguments as for `Tensor.to`.

        Returns itself if nothing changes, as in torch.

        >>> Packed(torch.arange(3), [1, 2]).to(torch.float32).data
        tensor([0., 1., 2.])
        """
        return self._moved(self._data.to(*args, **kwargs))

    def cpu(self) -> Packed:
        """The batch with its data on the host."""
        return self._moved(self._data.cpu())

    def detach(self) -> Packed:
        """The batch with its data detached from the autograd graph: a view."""
        return Packed._of(self._data.detach(), self._layout)

    def pin_memory(self) -> Packed:
        """The batch with its data in pinned memory; `DataLoader(pin_memory=True)` calls this."""
        return self._moved(self._data.pin_memory())

    def is_pinned(self) -> bool:
        """Whether the data are in pinned memory."""
        return self._data.is_pinned()

    def _moved(self, data: Tensor) -> Packed:
        return self if data is self._data else Packed._of(data, self._layout)

    def unpack(self) -> list[Tensor]:
        """The B sequences, `(len, *)` each: views of the data.

        >>> Packed(torch.arange(3), [1, 0, 2]).unpack()
        [tensor([0]), tensor([], dtype=torch.int64), tensor([1, 2])]
        """
        return list(self._data.split(self._layout.lengths.tolist()))

    def pad(
        self,
        value: float = 0.0,
        *,
        total_length: int | None = None,
        side: Literal["right", "left"] = "right",
        batch_first: bool = True,
    ) -> Tensor:
        """The padded batch `(B, T, *)`, or `(T, B, *)`: a copy.

        Args:
            value: value of the cells without a row.
            total_length: number of steps to pad to; the longest length if None.
            side: where the padding goes.
            batch_first: whether sequences or steps are dimension 0.

        Raises:
            ValueError: `total_length` is below the longest length, or `side` is unknown.
            TypeError: a `value` that the dtype cannot represent, or an option of the wrong type.
            RuntimeError: a `value` outside the dtype's range.

        >>> Packed(torch.arange(1, 5), [1, 3]).pad(side="left")
        tensor([[0, 0, 1],
                [2, 3, 4]])
        """
        check_batch_first("pad", batch_first)
        return pad_rows(self._data, self._layout, value, total_length, side, batch_first)

    def mask(
        self,
        *,
        total_length: int | None = None,
        side: Literal["right", "left"] = "right",
        batch_first: bool = True,
    ) -> Tensor:
        """Which cells of the padded batch hold a row: bool `(B, T)`, or `(T, B)`; options as in `pad`.

        >>> Packed(torch.arange(4), [1, 3]).mask()
        tensor([[ True, False, False],
                [ True,  True,  True]])
        """
        check_batch_first("mask", batch_first)
        return row_mask(self._data, self._layout, total_length, side, batch_first)

    def to_packed_sequence(self) -> PackedSequence:
        """The batch as a `PackedSequence`, sorted longest first like torch's: a copy.

        A batch created from a `PackedSequence` keeps its order, except through pickle. Sequences of length 0 are
        counted in `sorted_indices`, which has B entries, but not in `batch_sizes`.

        >>> Packed(torch.tensor([1, 2, 3]), [1, 2]).to_packed_sequence().data
        tensor([2, 1, 3])
        """
        return packed_sequence_of_rows(self._data, self._layout)

    def to_nested(self) -> Tensor:
        """The batch as a jagged nested tensor `(B, len, *)`: a view of the data.

        Batches derived from one another give nested tensors that can be added and multiplied.

        >>> Packed(torch.tensor([1, 2, 3]), [1, 2]).to_nested().unbind()
        (tensor([1]), tensor([2, 3]))
        """
        return nested_of_rows(self._data, self._layout)

    def to_arrow(self) -> Any:
        """The batch as a `pyarrow.LargeListArray` of B lists that shares the data's memory.

        Rows of more than one number become nested fixed-size lists, one level per dimension. Booleans,
        which Arrow stores as bits, and non-contiguous data are copied.

        Raises:
            ImportError: pyarrow is not installed (extra `arrow`).
            TypeError: Arrow lacks the data's type (bfloat16, complex).
            RuntimeError: the data require grad, or are not on the CPU.

        >>> Packed(torch.tensor([1, 2, 3]), [1, 2]).to_arrow().to_pylist()
        [[1], [2, 3]]
        """
        return arrow_of_rows(self._data, self._layout)

    def __repr__(self) -> str:
        layout = self._layout
        cells = layout.batch * layout.steps
        fill = layout.rows / cells if cells else 1.0
        text = f"B={layout.batch}, N={layout.rows}, T={layout.steps}, fill={fill:.2f}"
        if not isinstance(self._data, Tensor):  # a tree map may replace the data by anything
            return f"Packed({text}, data={self._data!r})"
        text += f", shape={tuple(self._data.shape)}, dtype={self._data.dtype}"
        if self._data.device.type != "cpu":
            text += f", device='{self._data.device}'"
        return f"Packed({text})"

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> NoReturn:
            hint = ""
            if name in PackedSequence._fields:
                hint = "; .to_packed_sequence() returns a PackedSequence, and .pad() a padded batch"
            elif hasattr(Tensor, name):
                hint = "; the rows are in .data, and padless.ops has operations on each sequence"
            # Without name= and obj=, which Dynamo does not trace.
            raise AttributeError(f"'Packed' object has no attribute {name!r}{hint}")

    def __setattr__(self, name: str, value: Any) -> NoReturn:
        raise AttributeError(f"a Packed cannot be changed (.{name}): use .map(...) or pack(...) instead")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"a Packed cannot be changed (.{name}): use .map(...) or pack(...) instead")

    def __reduce__(self) -> tuple[type[Packed], tuple[Tensor, list[int]]]:
        # Lengths as a list, because sending a tensor between processes costs a file descriptor; through __init__,
        # because a file may have been tampered with.
        return (Packed, (self._data, self._layout.lengths.tolist()))

    def __deepcopy__(self, memo: dict[int, Any]) -> Packed:
        return Packed._of(copy.deepcopy(self._data, memo), self._layout)


def _check_rows(data: Any) -> None:
    if not isinstance(data, Tensor):
        raise TypeError(f"data must be a tensor (N, *), got {type(data).__name__}")
    if data.is_nested or data.dim() == 0:
        kind = "a nested tensor" if data.is_nested else "a scalar"
        raise ValueError(f"data must be a tensor (N, *), got {kind}")
