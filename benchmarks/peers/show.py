"""The table and the picture of docs/peers.md, of what `run.py` wrote: `python benchmarks/peers/show.py`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
NAMES = ["torch padded", "torch packed", "torchrua", "ONNX Runtime", "OpenVINO", "Keras", "Flax"]
COLOURS = ["#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#8c8c8c"]


def table(report: dict[str, Any]) -> str:
    """Markdown: milliseconds of padless, and how many times as long the others take."""
    lines = [
        "| | lengths | B, T, H | fill | padless, ms | " + " | ".join(NAMES) + " |",
        "|---|---|---|---|---|" + "---|" * len(NAMES),
    ]
    for result in report["results"]:
        seconds = result["seconds"]
        ratios = [f"{seconds[n] / seconds['padless']:.2f}" if n in seconds else "" for n in NAMES]
        cells = [
            result["mode"],
            result["lengths"],
            ", ".join(map(str, result["shape"])),
            f"{result['fill']:.2f}",
        ]
        lines.append("| " + " | ".join([*cells, f"{1e3 * seconds['padless']:.2f}", *ratios]) + " |")
    return "\n".join(lines)


def draw(report: dict[str, Any], path: Path) -> None:
    """Bars of each case: how many times as long as padless each peer takes, on a logarithmic scale."""
    import matplotlib as mpl

    mpl.use("agg")
    import matplotlib.pyplot as plt

    figure, sides = plt.subplots(1, 2, figsize=(11, 5.2), sharex=True, layout="constrained")
    for side, mode in zip(sides, ("train", "infer"), strict=True):
        results = [r for r in report["results"] if r["mode"] == mode]
        for place, result in enumerate(results):
            seconds = result["seconds"]
            taking_part = [n for n in NAMES if n in seconds]
            for bar, name in enumerate(taking_part):
                at = place + (bar - (len(taking_part) - 1) / 2) * 0.8 / len(NAMES)
                ratio = seconds[name] / seconds["padless"]
                side.barh(at, ratio - 1, 0.8 / len(NAMES), left=1, color=COLOURS[NAMES.index(name)])
        side.set_yticks(
            range(len(results)),
            [f"{r['lengths']}\n{', '.join(map(str, r['shape']))}" for r in results],
        )
        side.invert_yaxis()
        side.set_xscale("log", base=2)
        side.set_xticks([1, 2, 4, 8], ["1", "2", "4", "8"])
        side.axvline(1, color="black", linewidth=1)
        side.set_title({"train": "Training step", "infer": "Inference"}[mode], loc="left", fontsize=11)
        side.set_xlabel("times as long as padless")
        side.spines[["top", "right"]].set_visible(False)
    handles = [plt.Rectangle((0, 0), 1, 1, color=colour) for colour in COLOURS]
    figure.legend(handles, NAMES, loc="outside lower center", ncols=len(NAMES), frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    found = json.loads((ROOT / "benchmarks" / "results" / "peers.json").read_text())
    draw(found, ROOT / "docs" / "peers.png")
    print(table(found))
