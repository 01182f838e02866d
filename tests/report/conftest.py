from __future__ import annotations

from pathlib import Path

import pytest

from .kit import LENGTHS


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of lengths in the working directory, so that its name is its path."""
    monkeypatch.chdir(tmp_path)
    Path("lengths.txt").write_text("".join(f"{length}\n" for length in LENGTHS))
    return "lengths.txt"
