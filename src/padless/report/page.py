"""A report as a self-contained HTML page without scripts, fonts or requests, in light and dark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from .contents import Report
from .histogram import bin_text, histogram_svg

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --ink: #1a2333; --soft: #566176; --paper: #fff; --line: #d5dbe5;
  --bar: #0072b2; --lost: #e3a18a; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf2; --soft: #a3aec2; --paper: #12161f; --line: #333c4d; --bar: #56b4e9; --lost: #8a4a35; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 84rem; color: var(--ink); background: var(--paper);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 2.5rem 0 .5rem; }
p, li, figcaption, summary { color: var(--soft); }
figure { margin: 0; }
.histogram { width: 100%; max-width: 60rem; height: auto; display: block; font-size: 12px; }
.histogram text { fill: var(--soft); }
.histogram .count { text-anchor: end; } .histogram .length, .histogram .axis { text-anchor: middle; }
.bar { fill: var(--bar); } .grid { stroke: var(--line); } .floor { stroke: var(--ink); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: left; color: var(--soft); padding-bottom: .5rem; }
th, td { padding: .35rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; }
tbody tr:last-child.needed > * { border-top: 2px solid var(--line); font-weight: 600; }
.meter { display: inline-block; width: 6rem; height: .8rem; vertical-align: -.05rem; background: var(--lost); }
.meter + span { display: inline-block; min-width: 5rem; }
.meter > span { display: block; height: 100%; background: var(--bar); }
.key > span { display: inline-block; width: .8rem; height: .8rem; vertical-align: -.05rem; }
"""


def page(report: Report) -> str:
    """The whole page as text."""
    title = escape(report.title())
    sections = [
        f"<h1>{title}</h1>",
        f"<p>{escape(report.spread_text())}</p>",
        "<h2>Lengths</h2>",
        _figure(report),
        "<h2>What padding costs</h2>",
        _policies(report),
        _list(report.notes()),
    ]
    if report.measured:
        rows = [[escape(cell) for cell in line] for line in report.timing_lines()]
        sections += [
            "<h2>Measured</h2>",
            _table(
                report.timing_headings(), rows, "Seconds of an epoch on one machine, padded and by padless"
            ),
            _list(report.measured.how),
        ]
    body = "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>padless report: {title}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _figure(report: Report) -> str:
    bins = [[bin_text(each), f"{each.count:,}"] for each in report.spread.bins]
    return (
        f"<figure>\n{histogram_svg(report.spread)}\n"
        "<figcaption>Number of sequences by length.</figcaption>\n</figure>\n"
        "<details>\n<summary>The same as numbers</summary>\n"
        f"{_table(['length', 'sequences'], bins, 'Sequences by length')}\n</details>"
    )


def _policies(report: Report) -> str:
    headings = list(report.headings())
    place = headings.index("fill")
    fills = [*(each.fill for each in report.policies), 1.0]
    rows = []
    for line, fill in zip(report.lines(), fills, strict=True):
        cells = [escape(cell) for cell in line]
        meter = f'<span class="meter" aria-hidden="true"><span style="width:{100 * fill:.1f}%"></span></span>'
        cells[place] = f"{meter}<span>{cells[place]}</span>"
        rows.append(cells)
    key = (
        '<span class="key"><span style="background:var(--bar)"></span> real rows '
        '<span style="background:var(--lost)"></span> padding</span>'
    )
    return _table(headings, rows, f"By batching policy: {key}", last="needed")


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], caption: str, last: str = "") -> str:
    """A table whose cells are HTML; the first of each row is its heading."""
    head = "".join(f'<th scope="col">{escape(heading)}</th>' for heading in headings)
    lines = [
        f'<th scope="row">{first}</th>' + "".join(f"<td>{cell}</td>" for cell in rest)
        for first, *rest in rows
    ]
    opened = ["<tr>"] * (len(lines) - 1) + [f'<tr class="{last}">' if last else "<tr>"]
    body = "\n".join(f"{tr}{line}</tr>" for tr, line in zip(opened, lines, strict=True))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table">\n<table>\n<caption>{caption}</caption>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>"
    )


def _list(notes: Iterable[str]) -> str:
    return "<ul>\n" + "\n".join(f"<li>{escape(note)}</li>" for note in notes) + "\n</ul>"
