"""Reads one Parquet column of integers (lengths), lists or text, part of a row group at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from ...errors import LengthsError, PadlessError, UsageError
from .collected import Collected, column_index
from .source import Progress, Source

__all__ = ["is_list_type", "read_parquet"]

_ROWS = 1 << 16
_BUFFER = 1 << 20
_TEXTS = ("is_string", "is_large_string", "is_string_view")
# The oldest supported pyarrow has no views.
_LISTS = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")


def read_parquet(source: Source, collected: Collected, column: str | None, progress: Progress) -> None:
    """Add one length per row.

    Args:
        source: a file, or standard input if it is a file.
        collected: where the lengths go.
        column: the name of the column; not needed if there is only one.
        progress: called with the rows done and the total.

    Raises:
        UsageError: the column does not exist, is there more than once, or there are several and none is named.
        LengthsError: not Parquet, a column of another type, a null, text that is not UTF-8, or a negative length.
        PadlessError: pyarrow is not installed (extra `arrow`).
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise PadlessError("reading Parquet needs pyarrow: pip install pyarrow") from error

    if source.path is None and not source.raw.seekable():
        raise PadlessError("Parquet cannot come from a pipe, since it is read from its end; pass the file")
    try:
        # Buffered, without prefetching: only some pages of one column are in memory, however large a row group is.
        with pq.ParquetFile(source.path or source.raw, pre_buffer=False, buffer_size=_BUFFER) as file:
            schema = file.schema_arrow
            name = collected.column = schema.names[column_index(schema.names, column, source.name)]
            kind = schema.field(name).type
            count = _counter(pa, kind, collected)
            done = 0
            for batch in file.iter_batches(_ROWS, columns=[name], use_threads=False):
                # If the name is `a.b`, the batch also has the column `a`, should that have a part `b`.
                values = batch.column(batch.schema.get_field_index(name))
                if values.null_count:
                    row = done + values.is_null().index(True).as_py() + 1
                    raise collected.error(f"row {row}", "null; an empty sequence is an empty list or text")
                try:
                    numbers = count(values)
                except UnicodeDecodeError as error:
                    row = done + next(i for i, value in enumerate(values, 1) if not _is_text(value))
                    byte = error.object[error.start]
                    raise collected.error(f"row {row}", f"byte 0x{byte:02x} is not UTF-8") from None
                if pa.types.is_floating(kind):
                    numbers = [_whole(each, done + i, collected) for i, each in enumerate(numbers, 1)]
                collected.add_numbers(numbers, lambda i, done=done: f"row {done + i + 1}")
                done += len(numbers)
                progress(done, file.metadata.num_rows)
    except (pa.ArrowException, OSError) as error:
        raise LengthsError(f"{source.name} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _counter(pa: ModuleType, kind: Any, collected: Collected) -> Callable[[Any], list[Any]]:
    """The function that turns arrays of this type into lengths; sets in `collected` what is counted."""
    if pa.types.is_dictionary(kind):
        count = _counter(pa, kind.value_type, collected)
        return lambda values: count(values.dictionary_decode())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        collected.unit = "lengths"
        return lambda values: values.to_pylist()
    if _is_any(pa, kind, _TEXTS):
        collected.unit = "words"
        return lambda values: [len(text.split()) for text in values.to_pylist()]
    if is_list_type(pa, kind):
        import pyarrow.compute as pc

        collected.unit = "items"
        return lambda values: pc.list_value_length(values).to_pylist()  # type: ignore[attr-defined]
    raise UsageError(
        f"{collected.source}: column {collected.column!r} is {kind}; use one of integers, text or lists"
    )


def is_list_type(pa: ModuleType, kind: Any) -> bool:
    """Whether an Arrow type is one of lists, of any kind that `pa`, which is pyarrow, knows."""
    return _is_any(pa, kind, _LISTS)


def _is_any(pa: ModuleType, kind: Any, names: Iterable[str]) -> bool:
    return any(getattr(pa.types, name)(kind) for name in names if hasattr(pa.types, name))


def _is_text(value: Any) -> bool:
    """Whether an Arrow scalar of text is valid UTF-8."""
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True


def _whole(number: float, row: int, collected: Collected) -> int:
    if isinstance(number, float) and not number.is_integer():
        raise collected.error(f"row {row}", f"{number} is not a whole number")
    return int(number)
