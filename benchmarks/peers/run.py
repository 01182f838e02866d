"""padless beside its peers, on the same rows, lengths and weights: `python benchmarks/peers/run.py`.

Makes an environment for each peer under build/peers (some gigabytes), checks every output at real rows against torch
in float64, then times all of them in turns, in CPU time on one thread. Writes benchmarks/results/peers.json and prints
a table.
`--only NAME` (may repeat) takes fewer peers, `--turns N` other turns than 7.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from padless.bench.facts import facts

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REQUIREMENTS = {  # what is installed beside the interpreter's own packages; padless's environment has torch
    "torchrua": ["torchrua"],
    "ONNX Runtime": ["onnxruntime", "onnx"],
    "OpenVINO": ["openvino", "onnx"],
    "Keras": ["tensorflow-cpu"],
    "Flax": ["jax", "flax"],
}
WITHOUT_TORCH = {"Keras", "Flax"}
NAMES = [
    "padless", "torch padded", "torch packed", "torchrua", "ONNX Runtime", "OpenVINO", "Keras", "Flax",
    "padless bf16", "torch padded bf16",
]  # fmt: skip
SERVE_ONLY = {"ONNX Runtime", "OpenVINO"}
CASES = [  # name, B, T, H
    ("short", 64, 100, 128),
    ("short", 64, 200, 256),
    ("short", 8, 100, 256),
    ("equal", 64, 100, 128),
    ("one", 1, 200, 256),
]


def python_of(name: str) -> str:
    """The interpreter with this peer; its environment is made where it does not exist yet."""
    if name not in REQUIREMENTS:
        return sys.executable
    folder = ROOT / "build" / "peers" / name.replace(" ", "-").lower()
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        if name not in WITHOUT_TORCH:  # it sees the packages of this interpreter
            site = next((folder / "lib").glob("python*/site-packages"))
            here = [str(ROOT / "src"), *(p for p in sys.path if p.endswith("site-packages"))]
            (site / "here.pth").write_text("\n".join(here) + "\n")
        subprocess.run([str(python), "-m", "pip", "install", "-qq", *REQUIREMENTS[name]], check=True)
        (folder / "ready").touch()
    return str(python)


def write_case(path: Path, kind: str, batch: int, steps: int, width: int, train: bool) -> np.ndarray:
    """Writes the case; returns the outputs of torch in float64 at real rows, each sequence alone."""
    torch.manual_seed(0)
    if kind == "short":
        lengths = (torch.rand(batch) ** 1.5 * (steps - 1)).long() + 1
        lengths[0] = steps
    else:
        lengths = torch.full((batch,), steps)
    grid = torch.randn(batch, steps, width)
    grid[torch.arange(steps) >= lengths[:, None]] = 0
    layer = torch.nn.LSTM(width, width)
    named = dict(layer.named_parameters())
    np.savez(
        path, grid=grid.numpy(), lengths=lengths.numpy(), train=train,
        w_ih=named["weight_ih_l0"].detach().numpy(), w_hh=named["weight_hh_l0"].detach().numpy(),
        b_ih=named["bias_ih_l0"].detach().numpy(), b_hh=named["bias_hh_l0"].detach().numpy(),
    )  # fmt: skip
    with torch.no_grad():
        exact = layer.double()
        rows = [exact(grid[i, :n].double())[0] for i, n in enumerate(lengths.tolist())]
    return torch.cat(rows).numpy()


class Server:
    """One peer in a process of its own."""

    def __init__(self, name: str, case: Path) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [python_of(name), str(HERE / "contestants.py"), name, str(case)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._answer()

    def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None and self.process.stderr is not None
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"{self.name} stopped:\n{self.process.stderr.read()[-2000:]}")
        return answer.strip()

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def check(server: Server, expected: np.ndarray, folder: Path) -> None:
    """Raises SystemExit where outputs are further from float64 than rounding explains."""
    path = folder / "output.npy"
    server.ask(f"check {path}")
    error = float(np.abs(np.load(path) - expected).max())
    bound = 0.05 if "bf16" in server.name else 1e-4
    if not error <= bound:
        raise SystemExit(
            f"{server.name} is {error:.2g} away from float64, more than {bound:.2g}; nothing was timed"
        )


def time_case(
    names: list[str], case: Path, expected: np.ndarray, turns: int, folder: Path
) -> dict[str, float]:
    """Median seconds of each peer."""
    servers: list[Server] = []
    try:
        servers += [Server(name, case) for name in names]
        for server in servers:
            check(server, expected, folder)
        times: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(turns):
            for server in servers:
                times[server.name].append(min(float(server.ask("time")) for _ in range(2)))
        return {name: statistics.median(found) for name, found in times.items()}
    finally:
        for server in servers:
            server.stop()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", action="append", choices=NAMES, help="only this peer (may repeat)")
    parser.add_argument("--turns", type=int, default=7)
    options = parser.parse_args()
    names = ["padless", *(n for n in NAMES if n != "padless" and (not options.only or n in options.only))]
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for kind, batch, steps, width in CASES:
            for train in (True, False):
                path = folder / "case.npz"
                expected = write_case(path, kind, batch, steps, width, train)
                taking_part = [name for name in names if not (train and name in SERVE_ONLY)]
                seconds = time_case(taking_part, path, expected, options.turns, folder)
                mode, fill = ("train" if train else "infer"), len(expected) / (batch * steps)
                results.append(
                    {
                        "lengths": kind,
                        "shape": [batch, steps, width],
                        "mode": mode,
                        "fill": fill,
                        "seconds": seconds,
                    }
                )
                print(f"{mode} {kind} {batch},{steps},{width}  fill {fill:.2f}", flush=True)
                for name, found in seconds.items():
                    print(
                        f"    {name:18} {1e3 * found:9.3f} ms  {found / seconds['padless']:6.2f}", flush=True
                    )
    report = {**facts(threads=1), "results": results}
    if not options.only:
        (ROOT / "benchmarks" / "results" / "peers.json").write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
