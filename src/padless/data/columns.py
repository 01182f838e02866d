"""Lengths of the lists in a column of a Hugging Face dataset or an Arrow table, from their offsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LengthsError, PadlessError
from ..options import near
from ..report.reading.parquet import is_list_type

__all__ = ["column_lengths"]

_ROWS = 10_000  # rows of a dataset that are read at a time


def column_lengths(dataset: Any, column: str) -> NDArray[np.int64]:
    """The length `(B,)` of each list in `column` of a `datasets.Dataset` or a `pyarrow.Table`.

    Lengths are in the dataset's current order, including shuffles and selections. Only this column is read, some
    thousand rows at a time; if the dataset is in its original order, only the offsets of the lists are read.

    Args:
        dataset: a Hugging Face `datasets.Dataset` of any format (extra `datasets`), or a `pyarrow.Table`. A
            streaming dataset does not know its lengths: see `StreamBatches`.
        column: name of a column of lists, such as token ids or rows of numbers.

    Raises:
        KeyError: the column does not exist, or there are several of this name.
        TypeError: neither a dataset nor a table, or the column does not hold lists.
        LengthsError: a list is null.
        PadlessError: pyarrow is not installed (extra `arrow`).

    >>> import pyarrow
    >>> column_lengths(pyarrow.table({"ids": [[5, 6], [], [7, 8, 9]]}), "ids")
    array([2, 0, 3])
    """
    try:
        import pyarrow.compute
    except ImportError as error:
        raise PadlessError("column_lengths needs pyarrow: pip install pyarrow") from error

    lengths = [np.zeros(0, np.int64)]
    done = 0
    for array in _chunks(dataset, column):
        if array.null_count:
            i = pyarrow.compute.index(array.is_null(), True).as_py()
            raise LengthsError(f"column {column!r} is null in row {done + i}, not a list")
        counts = pyarrow.compute.call_function("list_value_length", [array])
        lengths.append(counts.to_numpy().astype(np.int64))
        done += len(array)
    return np.concatenate(lengths)


def _chunks(dataset: Any, column: str) -> Iterator[Any]:
    """The column as Arrow list arrays, one piece after another."""
    import pyarrow

    is_table = isinstance(dataset, pyarrow.Table)
    if not is_table and not (hasattr(dataset, "with_format") and hasattr(dataset, "__len__")):
        raise TypeError(
            f"column_lengths takes a datasets.Dataset or a pyarrow.Table, got {type(dataset).__name__}"
        )
    names = list(dataset.column_names)
    if names.count(column) > 1:
        raise KeyError(f"there are {names.count(column)} columns {column!r}")
    if column not in names:
        raise KeyError(f"no column {column!r} among {', '.join(map(repr, names))}{near(column, names)}")
    tables = [dataset] if is_table else dataset.select_columns([column]).with_format("arrow").iter(_ROWS)
    for table in tables:
        for chunk in table.column(column).chunks:
            array = chunk.storage if isinstance(chunk, pyarrow.ExtensionArray) else chunk  # such as Array2D
            kind = array.type
            if not is_list_type(pyarrow, kind):
                raise TypeError(f"column {column!r} holds {kind}, not lists")
            yield array
