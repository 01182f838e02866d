"""The check that functions given by the caller return two values."""

from __future__ import annotations

from typing import Any

__all__ = ["pair_of"]


def pair_of(returned: Any, expected: str, hint: str = "") -> tuple[Any, Any]:
    """The two values that a function returned.

    Raises:
        TypeError: not a tuple or list of two; a tensor of two rows is not taken for one.
    """
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        got = f"{len(returned)} values" if isinstance(returned, (tuple, list)) else type(returned).__name__
        raise TypeError(f"{expected}, got {got}{hint}")
    return returned[0], returned[1]
