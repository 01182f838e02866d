"""The benchmark's table in the terminal: one line per shape, at most 110 columns."""

from __future__ import annotations

from math import exp, log
from typing import Any

__all__ = ["render", "summary"]

_SHORT = {
    "padless native": "native",
    "padless portable": "portable",
    "padless float32": "float32",
    "torch packed": "packed",
    "torch padded": "padded",
    "ONNX Runtime": "ONNX RT",
}


def render(results: list[dict[str, Any]]) -> str:
    """A table of results of one cell and mode: the time of padless's fastest backend, and of the others relative to it.

    The column `at fill` is torch padded's ratio times the fill: what it would be if padding cost nothing.
    """
    first = results[0]
    ours, *others = first["contestants"]
    columns = [_SHORT.get(name, name) for name in others]
    place = columns.index("padded") + 1 if "padded" in columns else None
    if place is not None:
        columns.insert(place, "at fill")
    head = f"{'B,T,H':>12} {'fill':>5} {'ms':>9} {'% sgemm':>8}  " + "".join(
        f"{name:>10}" for name in columns
    )
    lines = [
        "",
        f"{first['cell']} {first['mode']}: {ours}, and how many times as long the others take",
        head,
    ]
    table = []
    for result in results:
        timed = result["contestants"]
        ratios = [result["ratios"][name] for name in others]
        if place is not None:
            ratios.insert(place, result["ratios"]["torch padded"] * result["fill"])
        table.append(ratios)
        lines.append(
            f"{','.join(map(str, result['shape'])):>12} {result['fill']:5.2f} "
            f"{1e3 * timed[ours]['median_seconds']:9.3f} {timed[ours]['percent_of_sgemm']:8.0f}  "
            + "".join(f"{ratio:10.2f}" for ratio in ratios)
        )
    if len(results) > 1:
        means = [_geometric_mean(column) for column in zip(*table, strict=True)]
        lines.append(f"{'geometric mean':<38}" + "".join(f"{mean:10.2f}" for mean in means))
    return "\n".join(lines)


def summary(results: list[dict[str, Any]]) -> str:
    """One line per mode: geometric means over all cells and shapes that a contestant took part in."""
    lines = []
    for mode in dict.fromkeys(result["mode"] for result in results):
        of_mode = [result["ratios"] for result in results if result["mode"] == mode]
        names = dict.fromkeys(name for ratios in of_mode for name in ratios)
        means = {
            name: _geometric_mean(ratios[name] for ratios in of_mode if name in ratios) for name in names
        }
        lines.append(f"{mode}: " + ", ".join(f"{mean:.2f} {name}" for name, mean in means.items()))
    return "\n".join(
        ["", "How many times as long the others take, geometric means over cells and shapes:", *lines]
    )


def _geometric_mean(values: Any) -> float:
    values = list(values)
    return exp(sum(map(log, values)) / len(values))
