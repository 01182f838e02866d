"""One colour per sequence, distinguishable with colour vision deficiency; labels carry the same information."""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from itertools import pairwise

from .arrangement import Arrangement

__all__ = ["FEW", "MANY", "ink_on", "mean_colours", "sequence_colours", "terminal_colour"]

Colour = tuple[int, int, int]

# Okabe and Ito's colours for a few sequences, shades of viridis for many. Neither has a grey, the colour of padding.
FEW = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#f0e442", "#000000")
# viridis from 0.2 to 0.9: its ends have too little contrast on a dark or a light page.
MANY = ("#414487", "#355f8d", "#2a788e", "#21918c", "#22a884", "#44bf70", "#7ad151", "#bddf26")
_CUBE = (0, 95, 135, 175, 215, 255)  # the levels of a terminal's 6 x 6 x 6 colours, 16 to 231


def sequence_colours(batch: Arrangement) -> list[str]:
    """`#rrggbb` of each slot: by the caller's index for up to eight sequences, otherwise by length."""
    if batch.sequences <= len(FEW):
        return [FEW[index] for index in batch.order]
    last = batch.sequences - 1
    return [_shade(slot / last) for slot in range(batch.sequences)]


def ink_on(colour: str) -> str:
    """Black or white, whichever is more readable on `colour`; the contrast is at least 4.5.

    >>> ink_on("#f0e442"), ink_on("#0072b2")
    ('#000000', '#ffffff')
    """
    return "#000000" if _luminance(_parts(colour)) > 0.179 else "#ffffff"  # both have 4.58 there


def mean_colours(batch: Arrangement, colours: list[str], bounds: list[int]) -> list[str]:
    """The mean colour of the rows in memory between neighbouring `bounds`."""
    by_slot = [(0, 0, 0)]  # sums of the colours of the preceding slots
    for colour in colours:
        by_slot.append(_add(by_slot[-1], _parts(colour)))
    by_run = [(0, 0, 0)]
    for run in batch.runs:
        by_run.append(_add(by_run[-1], by_slot[run.size], run.stop - run.start))

    def before(row: int) -> Colour:
        i = bisect_right(batch.runs, row, key=lambda run: run.row) - 1
        steps, slot = divmod(row - batch.runs[i].row, batch.runs[i].size)
        return _add(_add(by_run[i], by_slot[batch.runs[i].size], steps), by_slot[slot])

    sums = [before(row) for row in bounds]
    return [
        _hex(*((after - first) // (stop - start) for first, after in zip(left, right, strict=True)))
        for (start, stop), (left, right) in zip(pairwise(bounds), pairwise(sums), strict=True)
    ]


@cache
def terminal_colour(colour: str) -> int:
    """The nearest of a terminal's colours 16 to 255, which themes do not redefine; for black a visible grey.

    >>> terminal_colour("#0072b2"), terminal_colour("#ffffff")
    (25, 231)
    """
    if colour == FEW[-1]:
        return 240
    wanted = _parts(colour)
    cube = {
        16 + 36 * r + 6 * g + b: (_CUBE[r], _CUBE[g], _CUBE[b])
        for r in range(6) for g in range(6) for b in range(6)
    }  # fmt: skip
    greys = {232 + i: (8 + 10 * i,) * 3 for i in range(24)}
    palette = {**greys, **cube}
    return min(palette, key=lambda i: sum((a - b) ** 2 for a, b in zip(palette[i], wanted, strict=True)))


def _shade(part: float) -> str:
    place = part * (len(MANY) - 1)
    left = min(int(place), len(MANY) - 2)
    near, far = _parts(MANY[left]), _parts(MANY[left + 1])
    return _hex(*(round(a + (b - a) * (place - left)) for a, b in zip(near, far, strict=True)))


def _parts(colour: str) -> Colour:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _hex(red: int, green: int, blue: int) -> str:
    return f"#{red:02x}{green:02x}{blue:02x}"


def _add(sums: Colour, colour: Colour, times: int = 1) -> Colour:
    return sums[0] + times * colour[0], sums[1] + times * colour[1], sums[2] + times * colour[2]


def _luminance(colour: Colour) -> float:
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (p / 255 for p in colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
