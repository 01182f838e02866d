"""Texts and numbers shared by all kinds of pictures."""

from __future__ import annotations

import re

from ..report.measure import Waste

__all__ = ["SAVING", "count", "plain", "saving"]

SAVING = "{rows} of {cells} cells are real: {saved} of {padded} multiplications saved"

_IN_NO_DOCUMENT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def count(number: int, noun: str = "", *, shorten_from: int = 10**12) -> str:
    """A readable number; with a noun, in singular or plural.

    >>> count(1_234_567), count(1, "step"), count(2, "step"), count(2**63 - 1)
    ('1,234,567', '1 step', '2 steps', '9.22e+18')
    """
    figures = f"{number:,}" if number < shorten_from else f"{number:.2e}"
    return f"{figures} {noun}{'' if number == 1 else 's'}" if noun else figures


def saving(numbers: Waste, text: str = SAVING) -> str:
    """What packing saves, as a sentence in English or in the translation `text`.

    >>> from padless.report import waste
    >>> saving(waste([4, 6, 8, 5, 4, 3, 7, 8]))
    '45 of 64 cells are real: 19 of 64 multiplications saved'
    """
    product = numbers.product().multiplications
    return text.format(
        rows=f"{numbers.rows:,}",
        cells=f"{numbers.cells:,}",
        saved=f"{product.saved:,}",
        padded=f"{product.padded:,}",
    )


def plain(name: str) -> str:
    r"""A file name that is valid in a document: control characters and undecodable bytes are replaced.

    >>> plain("a\x1b.txt") == "a\ufffd.txt"
    True
    """
    return _IN_NO_DOCUMENT.sub("\ufffd", name)
