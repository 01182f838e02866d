"""A file or standard input as blocks or lines of text: its format, and errors about bytes that are not text."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from typing import IO

from ...errors import LengthsError, PadlessError, UsageError
from .collected import columns_text, printable

__all__ = ["LONGEST_LINE", "TEXT_FORMATS", "Progress", "Source", "open_source"]

TEXT_FORMATS = ("txt", "csv", "tsv", "json", "jsonl")
_SUFFIXES = {
    ".txt": "txt", ".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".parquet": "parquet", ".pq": "parquet",
}  # fmt: skip
_BLOCK = 1 << 20
_HEAD = 1 << 16  # the format is recognised by the first line, or by this much of it
LONGEST_LINE = 1 << 26  # characters, in formats that must be read in whole lines
_BEGINS_AN_ARRAY = re.compile(r'\[\s*(?:[\[{"0-9-]|$)')  # on several lines; text may begin with "[Applause]"
_GZIP, _PARQUET, _NUMPY = b"\x1f\x8b", b"PAR1", b"\x93NUMPY"

Progress = Callable[[int, "int | None"], None]


class Source:
    """The source: its name in messages, path (None for standard input), format and text."""

    format: str

    def __init__(self, name: str, path: str | None, raw: IO[bytes]) -> None:
        self.name = printable(name)
        self.path = path
        self.raw = raw
        self._size = _size_of_file(raw)
        self._is_gzip = _starts_with(raw, _GZIP)
        if self._is_gzip:
            import gzip

            self._stream: IO[bytes] = gzip.GzipFile(fileobj=raw)  # type: ignore[assignment]
        else:
            self._stream = raw
        self._head = self._read_head()

    def settle(self, format: str | None, *, expects_columns: bool, counts_words: bool) -> None:
        """Find the format if None is given, and raise if the data evidently do not have this format.

        Raises:
            UsageError: no format is given, and it could be more than one.
            LengthsError: it is empty, UTF-16, an array of NumPy, Parquet under another name, or Parquet compressed by
                gzip.
        """
        if not self._head:
            raise LengthsError(f"{self.name} is empty")
        self.format = (
            format or self._format_of_suffix() or self._format_of_head(expects_columns, counts_words)
        )
        if self.format == "json" and format is None and self._is_json_lines():
            self.format = "jsonl"
        if self.format == "parquet":
            if self._is_gzip:
                raise LengthsError(f"{self.name} is Parquet compressed by gzip; decompress it first")
            return
        if self._head.startswith(_PARQUET):
            raise LengthsError(f"{self.name} is Parquet, not {self.format}; read it with --format parquet")
        if self._head.startswith(_NUMPY):
            raise LengthsError(
                f"{self.name} is an array in NumPy's format; save it as text first: "
                f"numpy.savetxt('lengths.txt', numpy.load('lengths.npy'), '%d')"
            )
        if self._head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise LengthsError(f"{self.name} is UTF-16; convert it to UTF-8 first")

    def blocks(self, progress: Progress) -> Iterator[str]:
        """The text, up to a million characters at a time; a block may end inside a line; line ends are newlines.

        Raises:
            LengthsError: a byte that is not text; the message names its line.
        """
        # Lines may end in \r\n, or in \r alone, as on old Macs.
        decode = io.IncrementalNewlineDecoder(
            codecs.getincrementaldecoder("utf-8-sig")(), translate=True
        ).decode
        line = done = 0  # number of lines and bytes before this block
        for block in self._raw_blocks():
            if b"\0" in block:
                raise self._no_text(line + _line_ends(block[: block.index(b"\0")]), "a NUL byte")
            try:
                text = decode(block, final=not block)
            except UnicodeDecodeError as error:
                before, byte = error.object[: error.start], error.object[error.start]
                raise self._no_text(line + _line_ends(before), f"byte 0x{byte:02x} is not UTF-8") from None
            line += text.count("\n")
            done += len(block)
            progress(self.raw.tell() if self._is_gzip and self._size else done, self._size)
            if text:
                yield text

    def lines(self, progress: Progress) -> Iterator[str]:
        """The lines, with their line ends, which the last may lack.

        Raises:
            LengthsError: as in `blocks`, or a line is too long.
        """
        return chain.from_iterable(self._lines(progress))

    def _lines(self, progress: Progress) -> Iterator[list[str]]:
        number, rest = 0, ""
        for block in self.blocks(progress):
            first, *others = block.split("\n")  # `splitlines` would also split at other characters
            rest += first
            if len(rest) > LONGEST_LINE:
                raise LengthsError(
                    f"{self.name}, line {number + 1}: longer than {LONGEST_LINE:,} characters; is this {self.format}?"
                )
            if others:
                number += len(others)
                yield [line + "\n" for line in (rest, *others[:-1])]
                rest = others[-1]
        if rest:
            yield [rest]

    def _raw_blocks(self) -> Iterator[bytes]:
        """Blocks of bytes, and an empty one at the end."""
        block, self._head = self._head, b""
        while block:
            yield block
            block = self._read(_BLOCK)
        yield b""

    def _read_head(self) -> bytes:
        head = block = self._read(_HEAD)
        while block and len(head) < _HEAD and b"\n" not in head:
            block = self._read(_HEAD)
            head += block
        return head

    def _read(self, count: int) -> bytes:
        try:
            return self._stream.read(count) if not self._is_gzip else self._decompress(count)
        except OSError as error:
            raise _unreadable(self.name, error) from None

    def _decompress(self, count: int) -> bytes:
        import gzip
        import zlib

        try:
            return self._stream.read(count)
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise LengthsError(f"{self.name} cannot be decompressed: {error}") from None

    def _no_text(self, lines_before: int, what: str) -> LengthsError:
        return LengthsError(f"{self.name}, line {lines_before + 1}: {what}, so this is not {self.format}")

    def _format_of_suffix(self) -> str | None:
        stem, suffix = os.path.splitext((self.path or "").lower())
        return _SUFFIXES.get(os.path.splitext(stem)[1] if suffix == ".gz" else suffix)

    def _format_of_head(self, expects_columns: bool, counts_words: bool) -> str:
        if self._head.startswith(_PARQUET):
            return "parquet"
        line, others = self._first_line()
        if _is_json(line):
            if line.startswith("[") and not others:
                raise UsageError(
                    f"{self.name} is one JSON array on one line: --format json reads its items as sequences or "
                    f"lengths, --format jsonl reads the line as one sequence"
                )
            return "jsonl"
        if _BEGINS_AN_ARRAY.match(line):
            return "json"
        if not expects_columns and not counts_words:
            self._refuse_table()
        return "csv" if expects_columns else "txt"

    def _refuse_table(self) -> None:
        """Raise UsageError if the head is a table, whose lines would be counted as words."""
        from .csv_rows import names_of_table  # which imports this module

        names = names_of_table(self._text_of_head().split("\n"), is_cut=len(self._head) >= _HEAD)
        if names is not None:
            raise UsageError(
                f"{self.name} looks like a table of {len(names)} columns; choose one with --column: "
                f"{columns_text(names)} (--format txt counts the words of its lines)"
            )

    def _is_json_lines(self) -> bool:
        """Whether the first line is a JSON value and others follow: JSON lines, whatever the suffix."""
        line, others = self._first_line()
        return bool(others) and _is_json(line)

    def _first_line(self) -> tuple[str, str]:
        """The first line, and the known part of the text after it, both stripped."""
        line, _, others = self._text_of_head().partition("\n")
        return line.strip(), others.strip()

    def _text_of_head(self) -> str:
        text = self._head.decode("utf-8-sig", "replace")
        return text.replace("\r\n", "\n").replace("\r", "\n")


def _line_ends(text: bytes) -> int:
    return text.count(b"\n") + text.count(b"\r") - text.count(b"\r\n")


def _is_json(line: str) -> bool:
    """Whether a line is a JSON array, object or string."""
    if not line.startswith(("{", "[", '"')):
        return False
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


@contextmanager
def open_source(
    file: str, format: str | None, *, expects_columns: bool, counts_words: bool
) -> Iterator[Source]:
    """A `Source` for a path, or for standard input if `file` is `-`, with its format settled.

    Raises:
        PadlessError: it cannot be opened or read.
        LengthsError: it is empty, or evidently not of the given format.
    """
    if file == "-":
        if sys.stdin is None:
            raise PadlessError("cannot read standard input: it is closed")
        source = Source("standard input", None, sys.stdin.buffer)
        source.settle(format, expects_columns=expects_columns, counts_words=counts_words)
        yield source
        return
    try:
        raw = open(file, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise _unreadable(file, error) from None
    except ValueError as error:  # the path contains a NUL
        raise UsageError(f"cannot read {file!r}: {error}") from None
    with raw:
        source = Source(file, file, raw)
        source.settle(format, expects_columns=expects_columns, counts_words=counts_words)
        yield source


def _starts_with(raw: IO[bytes], magic: bytes) -> bool:
    try:
        return raw.peek(len(magic)).startswith(magic)  # type: ignore[attr-defined] - both kinds are buffered readers
    except OSError:
        return False  # reading it will raise the error


def _size_of_file(raw: IO[bytes]) -> int | None:
    status = os.fstat(raw.fileno())
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _unreadable(name: str, error: OSError) -> PadlessError:
    return PadlessError(f"cannot read {printable(name)}: {error.strerror or error}")
