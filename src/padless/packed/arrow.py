"""Conversions between back-to-back rows and Arrow list arrays that share their memory."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..layout.checks import lengths_of_offsets
from ..layout.layout import Layout

__all__ = ["arrow_of_rows", "rows_of_arrow"]


def rows_of_arrow(array: Any) -> tuple[Tensor, Layout]:
    """Rows `(N, *)` and layout of a list array of B sequences; the rows are Arrow's memory.

    Booleans, which Arrow stores as bits, and arrays of several chunks are copied.
    """
    pa = _pyarrow("from_arrow")
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):  # some versions of pyarrow, if the array is empty
            array = pa.concat_arrays([*array.chunks, pa.array([], array.type)])
    if isinstance(array, pa.FixedSizeListArray):
        array = array.cast(pa.large_list(array.type.value_type))
    if not isinstance(array, (pa.ListArray, pa.LargeListArray)):
        kind = array.type if isinstance(array, pa.Array) else type(array).__name__
        raise TypeError(f"from_arrow takes a list array, one list per sequence, got {kind}")
    if array.null_count:
        i = array.is_null().index(True).as_py()
        raise ValueError(f"from_arrow: sequence {i} is null; an empty list is a sequence of length 0")
    # A slice of an array keeps the values of the whole array; its offsets say which belong to it.
    offsets = torch.from_numpy(array.offsets.to_numpy().copy()).to(torch.int64)
    first, last = (int(offsets[0]), int(offsets[-1])) if len(offsets) else (0, 0)
    rows = _tensor_of_values(pa, array.values.slice(first, last - first))
    return rows, Layout(lengths_of_offsets(offsets - first, rows=last - first))


def arrow_of_rows(data: Tensor, layout: Layout) -> Any:
    """`pyarrow.LargeListArray` of B lists whose values share the memory of `data (N, *)`.

    A row of more than one number becomes nested fixed-size lists, one level per dimension.
    """
    pa = _pyarrow("to_arrow")
    if data.requires_grad:
        raise RuntimeError("to_arrow: the data require grad, which Arrow cannot keep; use .detach()")
    if data.device.type != "cpu":
        raise RuntimeError(f'to_arrow: the data are on {data.device}; use .to("cpu")')
    if 0 in data.shape[1:]:
        raise ValueError(f"to_arrow: rows of shape {tuple(data.shape[1:])} hold no values")
    try:
        values = pa.array(data.reshape(-1).numpy())
    except (TypeError, NotImplementedError, pa.ArrowException) as error:
        raise TypeError(f"to_arrow: Arrow has no type for {data.dtype}") from error
    for size in reversed(data.shape[1:]):
        values = pa.FixedSizeListArray.from_arrays(values, size)
    return pa.LargeListArray.from_arrays(pa.array(layout.offsets.clone().numpy()), values)


def _tensor_of_values(pa: ModuleType, values: Any) -> Tensor:
    """Values as a tensor `(N, *)` with one trailing dimension per level of fixed-size lists."""
    sizes = []
    count = len(values)
    while True:
        if values.null_count:
            i = values.is_null().index(True).as_py()
            raise ValueError(f"from_arrow: value {i} is null, which a tensor cannot hold")
        if not isinstance(values, pa.FixedSizeListArray):
            break
        sizes.append(values.type.list_size)
        values = values.flatten()
    if pa.types.is_boolean(values.type):
        flat = torch.from_numpy(values.to_numpy(zero_copy_only=False).copy())
    elif pa.types.is_integer(values.type) or pa.types.is_floating(values.type):
        flat = torch.from_dlpack(values)
    else:
        raise TypeError(f"from_arrow: torch has no dtype for values of type {values.type}")
    return flat.reshape(count, *sizes)


def _pyarrow(caller: str) -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(f"{caller} needs pyarrow: pip install pyarrow") from error
    return pyarrow
