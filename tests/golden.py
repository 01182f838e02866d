"""Texts that must stay as they are, in `tests/goldens`; `RENEW_GOLDENS=1 make test ARGS='-k golden'` renews them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["assert_golden"]

GOLDENS = Path(__file__).parent / "goldens"


def assert_golden(name: str, text: str) -> None:
    """Hold `text` against the file `name`, or write it there where goldens are renewed."""
    path = GOLDENS / name
    if os.environ.get("RENEW_GOLDENS"):
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{path} is missing; RENEW_GOLDENS=1 writes it"
    assert text == path.read_text(encoding="utf-8"), f"{path} differs; look, then RENEW_GOLDENS=1 renews it"
