"""A histogram of lengths as inline SVG, with a description in words."""

from __future__ import annotations

from html import escape

from .spread import Bin, Spread, round_step

__all__ = ["bin_text", "histogram_svg"]

_WIDTH, _HEIGHT = 760, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 14, 46  # margins, for the labels
_LABELS = 10  # maximum, below the bars
_TICKS = 4  # approximate, beside the bars
_GAP = 1  # between bars; the open bin is set off by half a bar


def histogram_svg(spread: Spread) -> str:
    """An `<svg>` element: one bar per bin with a title, axes, and a description."""
    bins = spread.bins
    top = max(each.count for each in bins)
    step = round_step(top / _TICKS)
    ceiling = max(-(-top // step), 1) * step
    slot = (_WIDTH - _LEFT - _RIGHT) / (max(len(bins), _LABELS) + 0.5)
    floor = _HEIGHT - _BOTTOM
    named = 'role="img" aria-labelledby="lengths-title lengths-text"'
    parts = [
        f'<svg class="histogram" viewBox="0 0 {_WIDTH} {_HEIGHT}" {named}>',
        '<title id="lengths-title">Histogram of the lengths</title>',
        f'<desc id="lengths-text">{escape(_description(spread))}</desc>',
    ]
    for count in range(0, ceiling + 1, step):
        y = floor - (floor - _TOP) * count / ceiling
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="count" x="{_LEFT - 8}" y="{y + 4:.1f}">{count:,}</text>')
    every = -(-len(bins) // _LABELS)
    for place, each in enumerate(bins):
        is_open = each.high is None
        x = _LEFT + slot * (place + (0.5 if is_open else 0))
        height = (floor - _TOP) * each.count / ceiling
        height = max(height, 1.0) if each.count else 0.0  # keeps one sequence among millions visible
        parts.append(
            f'<rect class="bar" x="{x + _GAP / 2:.1f}" y="{floor - height:.1f}" width="{slot - _GAP:.1f}" '
            f'height="{height:.1f}"><title>{bin_text(each)}: {each.count:,}</title></rect>'
        )
        if is_open or (place % every == 0 and not (bins[-1].high is None and place > len(bins) - 1 - every)):
            parts.append(
                f'<text class="length" x="{x + slot / 2:.1f}" y="{floor + 18}">{_label(each)}</text>'
            )
    parts.append(f'<text class="axis" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}">length</text>')
    parts.append(f'<line class="floor" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{floor}" y2="{floor}"/></svg>')
    return "\n".join(parts)


def bin_text(each: Bin) -> str:
    """The lengths of a bin as text."""
    if each.high is None:
        return f"{each.low:,} and more"
    return f"{each.low:,}" if each.low == each.high else f"{each.low:,} to {each.high:,}"


def _label(each: Bin) -> str:
    return f"{each.low:,}+" if each.high is None else f"{each.low:,}"


def _description(spread: Spread) -> str:
    highest = max(spread.bins, key=lambda each: each.count)
    most = f"Most in one bar: {highest.count:,} of length {bin_text(highest)}."
    return f"{spread.sequences:,} sequences: {spread}. {most}"
