"""Reads lengths from files and pipes, ten million in some tens of megabytes, without torch."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import LengthsError, UsageError
from .collected import Collected
from .source import TEXT_FORMATS, Source, open_source

__all__ = ["FORMATS", "Collected", "read_lengths"]

FORMATS = (*TEXT_FORMATS, "parquet")


def read_lengths(
    file: str,
    *,
    format: str | None = None,
    column: str | None = None,
    words: bool = False,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Collected:
    """The lengths in `file`, or the lengths of the sequences in it.

    Args:
        file: a path, or `-` for standard input. Gzip is recognised by its first bytes and decompressed.
        format: one of `FORMATS`; None: by the suffix, or by the first line if the suffix is unknown.
        column: the column to read, for csv, tsv, parquet and objects in json and jsonl.
        words: count words even if an integer would otherwise be a length (txt, csv, tsv).
        progress: called occasionally with the amount done and the total (None: unknown).

    Raises:
        LengthsError: the file does not hold lengths; the message names the file and the line.
        UsageError: options that do not fit the file, or a column that does not exist.
        PadlessError: the file cannot be read, or pyarrow is missing.
    """
    with open_source(file, format, expects_columns=column is not None, counts_words=words) as source:
        collected = Collected(source.name)
        if column is not None and source.format == "txt":
            raise UsageError(
                f"--column is for csv, tsv, json, jsonl and parquet, but {source.name} is read as txt"
            )
        if words and source.format not in ("txt", "csv", "tsv"):
            raise UsageError(f"--words is for txt, csv and tsv, but {source.name} is read as {source.format}")
        _read(source, collected, column, words, progress)
    if not collected.values:
        raise LengthsError(f"{source.name} holds no sequences")
    return collected


def _read(
    source: Source,
    collected: Collected,
    column: str | None,
    words: bool,
    progress: Callable[[int, int | None], None],
) -> None:
    if source.format == "parquet":
        from .parquet import read_parquet

        read_parquet(source, collected, column, progress)
    elif source.format == "json":
        from .json_lines import read_json

        read_json("".join(source.blocks(progress)), collected, column)
    elif source.format == "jsonl":
        from .json_lines import read_json_lines

        read_json_lines(source.lines(progress), collected, column)
    elif source.format == "txt":
        from .txt import read_txt

        read_txt(source.blocks(progress), collected, words=words)
    else:
        from .csv_rows import read_csv

        delimiter = "\t" if source.format == "tsv" else None
        read_csv(source.lines(progress), collected, column, words=words, delimiter=delimiter)
