"""Models of other packages before and after one line: `python benchmarks/clients/run.py`.

Makes an environment under build/clients with flair, stanza, speechbrain, pytorch-forecasting and sb3-contrib, runs
`models.py` there, and writes benchmarks/results/clients.json. One thread, CPU time, in turns, losses equal first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PACKAGES = ["flair", "stanza", "speechbrain", "pytorch-forecasting", "sb3-contrib"]


def main() -> None:
    folder = ROOT / "build" / "clients"
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        version = torch.__version__.partition("+")[0]
        command = [str(python), "-m", "pip", "install", "-qq", f"torch=={version}", *PACKAGES]
        subprocess.run(command, check=True)
        (folder / "ready").touch()
    results = ROOT / "benchmarks" / "results" / "clients.json"
    subprocess.run(
        [str(python), str(HERE / "models.py"), str(results)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")}, check=True,
    )  # fmt: skip


if __name__ == "__main__":
    main()
