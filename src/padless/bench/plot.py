"""Plot of useful FLOPs, in per cent of sgemm, against rows per step, like a roofline; needs Matplotlib."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from ..outputs import write

__all__ = ["save_plot"]

# Okabe and Ito's colours, distinguishable with colour vision deficiency; the markers differ too.
_STYLES = {
    "padless native": ("#D55E00", "o"),
    "padless portable": ("#E69F00", "s"),
    # Only one of these three is timed at a time, and never beside "padless native".
    "padless bf16": ("#D55E00", "o"),
    "padless high": ("#D55E00", "o"),
    "padless medium": ("#D55E00", "o"),
    "padless float32": ("#E69F00", "s"),
    "torch packed": ("#0072B2", "v"),
    "torch padded": ("#56B4E9", "^"),
    "ONNX Runtime": ("#009E73", "D"),
    "OpenVINO": ("#CC79A7", "P"),
}


def save_plot(report: dict[str, Any], path: Path) -> None:
    """Write a plot of a `padless bench` report to `path`, as PNG, SVG or PDF depending on its suffix.

    One panel per cell and mode, one point per contestant and shape; those of padless are labelled with H.

    Raises:
        PadlessError: the file cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    results = report["results"]
    modes = list(dict.fromkeys(result["mode"] for result in results))
    cells = list(dict.fromkeys(result["cell"] for result in results))
    figure, axes = pyplot.subplots(
        len(modes), len(cells), sharex=True, sharey=True, squeeze=False, layout="constrained",
        figsize=(1 + 3.6 * len(cells), 1.2 + 3.2 * len(modes)),
    )  # fmt: skip
    for row, mode in zip(axes, modes, strict=True):
        for panel, cell in zip(row, cells, strict=True):
            _draw(panel, [r for r in results if (r["mode"], r["cell"]) == (mode, cell)])
            panel.set_title(f"{cell}, {'training' if mode == 'train' else 'inference'}", fontsize=10)
        row[0].set_ylabel("useful FLOPs, % of sgemm")
    for panel in axes[-1]:
        panel.set_xlabel("rows per step (N / T); labels: H")
    shown: dict[str, Any] = {}
    for panel in axes.flat:
        lines, labels = panel.get_legend_handles_labels()
        shown.update(zip(labels, lines, strict=True))
    figure.legend(shown.values(), shown, loc="outside lower center", ncols=len(shown), frameon=False)
    precision = "" if report["precision"] == "highest" else f" at precision {report['precision']!r}"
    rate = max(report["sgemm_flops_per_second"].values()) / 1e9
    figure.suptitle(
        f"{report['machine']}, {report['threads']} thread(s), {report['dtype']}{precision}, "
        f"lengths {report['lengths']!r}; 100 % = sgemm of {rate:.0f} GFLOP/s",
        fontsize=10,
    )
    picture = io.BytesIO()
    figure.savefig(picture, format=path.suffix[1:].lower(), dpi=130)
    pyplot.close(figure)
    write(path, picture.getvalue())


def _draw(panel: Any, results: list[dict[str, Any]]) -> None:
    panel.axhline(100, color="0.4", linewidth=1)
    ours = next(iter(results[0]["contestants"]))
    for name, (color, marker) in _STYLES.items():
        points = [
            (r["rows"] / r["shape"][1], r["contestants"][name]["percent_of_sgemm"], r["shape"][2])
            for r in results
            if name in r["contestants"]
        ]
        if points:
            x, y, widths = zip(*points, strict=True)
            panel.plot(x, y, marker, color=color, markersize=6, label=name, zorder=3 if name == ours else 2)
        if points and name == ours:  # points of different H can have the same number of rows, so label them
            for point in zip(x, y, widths, strict=True):
                panel.annotate(
                    str(point[2]), point[:2], (7, 0), textcoords="offset points", va="center", fontsize=8
                )
    panel.set_xscale("log", base=2)
    panel.xaxis.set_major_formatter("{x:g}")
    panel.margins(x=0.14)
    panel.set_ylim(0, 112)
    panel.grid(alpha=0.25)
