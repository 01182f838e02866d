"""Plain text: a line with one integer is a length, any other line is a sequence of words."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NoReturn

from ...errors import LengthsError
from .collected import Collected, integer_of, is_integer, is_number, shown

__all__ = ["read_txt"]

_SEVERAL = re.compile(r"\s*[+-]?[0-9]+(?:,[+-]?[0-9]+)*,(?:[+-]?[0-9]+)?\s*", re.ASCII)
_KEPT = 1 << 16  # characters kept of an unfinished line; of longer lines only the word count is kept


def read_txt(blocks: Iterable[str], collected: Collected, *, words: bool) -> None:
    """Add one length per line; the first line that is not blank determines the kind of all lines.

    Lines of any size are counted in bounded memory. Blank lines are sequences without words; among lengths they
    raise an error, except at the end.

    Args:
        blocks: the text, cut at any place.
        collected: where the lengths go.
        words: count words in every line, even in lines with one integer.

    Raises:
        LengthsError: a line of the other kind, or a length that is negative or too large.
    """
    reader = _Reader(collected, words)
    for block in blocks:
        reader.feed(block)
    reader.end()


class _Reader:
    def __init__(self, collected: Collected, words: bool) -> None:
        self.collected = collected
        self.words = words
        self.done = 0  # lines before the current block
        self.blank = 0  # the number of blank ones at the end, as long as their meaning is not known
        self.open = ""  # the unfinished line; if it is long, it is empty and these two are set:
        self.folded: int | None = None  # words in it so far
        self.in_word = False  # whether its last word may continue
        self.is_plain = True  # whether `int` accepts only what is_integer does: no other digits, no `1_000`
        if words:
            collected.unit = "words"

    def feed(self, block: str) -> None:
        was_plain, self.is_plain = self.is_plain, block.isascii() and "_" not in block
        *lines, rest = block.split("\n")
        if self.folded is not None:
            self._fold(lines[0] if lines else rest)
            if not lines:
                return
            self.collected.add([self.folded])
            self.folded = None
            self.done += 1
            lines = lines[1:]
        elif lines:
            lines[0] = self.open + lines[0]
        else:
            rest = self.open + rest
        self._add(lines, was_plain and self.is_plain)
        self.open = rest
        if len(rest) > _KEPT:
            self._settle(rest, self.done)
            if self.collected.unit == "lengths":
                self._refuse(rest, self.done)  # too long for an integer
            self.open, self.folded, self.in_word = "", 0, False
            self._fold(rest)

    def end(self) -> None:
        if self.open or self.folded is not None:
            self.feed("\n")

    def _fold(self, text: str) -> None:
        """Count the words in another part of the unfinished line."""
        if text:
            assert self.folded is not None
            self.folded += len(text.split()) - (self.in_word and not text[0].isspace())
            self.in_word = not text[-1].isspace()

    def _add(self, lines: list[str], is_plain: bool) -> None:
        if self.collected.unit is None:
            first = next((i for i, line in enumerate(lines) if line and not line.isspace()), None)
            if first is None:
                self.blank += len(lines)
                self.done += len(lines)
                return
            self._settle(lines[first], self.done + first)
        if self.collected.unit == "words":
            self._add_words(lines)
        elif not (is_plain and self._add_lengths(lines)):
            self._add_lengths_one_by_one(lines)
        self.done += len(lines)

    def _settle(self, line: str, index: int) -> None:
        """Decide what is counted, by the first line that is not blank."""
        if self.collected.unit is not None:
            return
        if is_integer(line):
            self.collected.unit = "lengths"
            return
        # Both could be counted as words, but a file of such lines is a mistake that would go unnoticed.
        if is_number(line):
            raise self._error(index, f"{line.strip()} is not a whole number (--words counts it as a word)")
        if _SEVERAL.fullmatch(line):
            raise self._error(
                index,
                f"{shown(line.strip())} is several integers; put one length on a line (--words counts words)",
            )
        self.collected.unit = "words"
        self.collected.add([0] * self.blank)
        self.blank = 0

    def _add_words(self, lines: list[str]) -> None:
        counts = [len(line.split()) for line in lines]
        if not self.words and 1 in counts:
            for i, (count, line) in enumerate(zip(counts, lines, strict=True)):
                if count == 1 and is_integer(line):
                    before = [*self.collected.values[:2], *counts[:i]]
                    hint = ", --format csv reads line 1 as the name of a column" if before == [1] else ""
                    raise self._error(
                        self.done + i,
                        f"{shown(line.strip())} is an integer among words (--words counts it as a word{hint})",
                    )
        self.collected.add(counts)

    def _add_lengths(self, lines: list[str]) -> bool:
        """Fast path for lines that are all integers; otherwise add nothing and return False."""
        try:
            numbers = list(map(int, lines))
        except ValueError:
            return False
        if self.blank and numbers:
            return False
        self.collected.add_numbers(numbers, lambda i: f"line {self.done + i + 1}")
        return True

    def _add_lengths_one_by_one(self, lines: list[str]) -> None:
        for i, line in enumerate(lines, self.done):
            if not line or line.isspace():
                self.blank += 1
            elif self.blank:
                raise self._error(i - self.blank, "blank, but the lines around it are lengths")
            elif not is_integer(line):
                self._refuse(line, i)
            else:
                self.collected.add_numbers([integer_of(line)], lambda _, i=i: f"line {i + 1}")

    def _refuse(self, line: str, index: int) -> NoReturn:
        if is_integer(line):
            self.collected.refuse_number(integer_of(line), f"line {index + 1}")
        raise self._error(
            index,
            f"{shown(line.strip())} is not an integer, but lengths precede it (--words counts words)",
        )

    def _error(self, index: int, what: str) -> LengthsError:
        return self.collected.error(f"line {index + 1}", what)
