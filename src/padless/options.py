"""Checks of options, with errors that name the wrong one; needs neither torch nor NumPy."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["named", "near", "rank_of", "whole"]


def whole(name: str, value: Any, least: int) -> int:
    """`value` as an integer of at least `least`; otherwise raise a ValueError that names the option."""
    if isinstance(value, bool) or not hasattr(value, "__index__") or value.__index__() < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    return value.__index__()


def named(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`; otherwise raise a ValueError that suggests the closest one."""
    if value not in choices:
        listed = ", ".join(map(repr, choices))
        raise ValueError(f"{name} must be one of {listed}, got {value!r}{near(value, choices)}")
    return value


def rank_of(rank: Any, world_size: int) -> int:
    """`rank` as an integer below `world_size`."""
    rank = whole("rank", rank, 0)
    if rank >= world_size:
        raise ValueError(f"rank must be below world_size={world_size}, got {rank}")
    return rank


def near(value: Any, choices: Iterable[str]) -> str:
    """The end of an error message: "did you mean" and the closest of `choices`, or nothing."""
    from difflib import get_close_matches  # imported only for errors, so that the command line starts fast

    found = get_close_matches(str(value), list(choices), n=1)
    return f"; did you mean {found[0]!r}?" if found else ""
