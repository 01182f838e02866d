"""The machine, versions and commit that measured numbers belong to."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .. import __version__, backends

__all__ = ["facts", "load"]


def facts(threads: int) -> dict[str, Any]:
    """What a reader of the results needs to know; one thread is measured in CPU time, more in wall time."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _machine(),
        "python": platform.python_version(),
        "padless": __version__,
        "versions": {name: _version(name) for name in ("torch", "onnxruntime", "openvino")},
        "commit": _commit(),
        "backend": backends.active(),
        "threads": threads,
        "clock": "CPU" if threads == 1 else "wall",
        "load": load(),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def load() -> float | None:
    """Average number of runnable processes in the last minute, before measuring: 0 on an idle machine."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def _machine() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """The commit of the source tree that this package runs from, or None if it does not run from one."""
    try:
        found = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
