"""The leaves of a batch of any loader: tensors and sequences inside it, their paths, and their names in errors."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import LengthsError
from ..packed import Packed

__all__ = ["Path", "at", "described", "grid", "leaves", "spelled", "vector"]

Path = tuple[Any, ...]  # keys, positions and `_Field`s, from the batch to a leaf

_DEPTH = 4  # batches like ((x, {...}), y); deeper parts are ignored
_SHOWN = 8  # parts of a batch listed in an error


class _Field(str):
    """The name of an attribute; a plain string is a key."""

    __slots__ = ()


def leaves(batch: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Path and value of every leaf of nested tuples, lists, mappings and dataclasses."""
    parts = _parts(batch) if len(path) < _DEPTH else None
    if parts is None:
        yield path, batch
    else:
        for key, part in parts:
            yield from leaves(part, (*path, key))


def at(batch: Any, path: Path) -> Any:
    """The leaf at `path`; LengthsError if this batch has another structure."""
    try:
        for key in path:
            batch = getattr(batch, key) if isinstance(key, _Field) else batch[key]
    except (LookupError, TypeError, AttributeError):
        raise LengthsError(
            f"there is no {spelled(path)}, which held the lengths in the batches before"
        ) from None
    return batch


def spelled(path: Path) -> str:
    """`path` as a Python expression."""
    return "batch" + "".join(f".{key}" if isinstance(key, _Field) else f"[{key!r}]" for key in path)


def vector(leaf: Any) -> list[int] | None:
    """A leaf as integers `(B,)`, or None if it is something else."""
    if isinstance(leaf, Tensor):
        if leaf.dim() != 1 or leaf.is_floating_point() or leaf.is_complex() or leaf.dtype == torch.bool:
            return None
        return leaf.tolist()  # synchronises if the loader's batches are on a device
    if isinstance(leaf, np.ndarray):
        return leaf.tolist() if leaf.ndim == 1 and leaf.dtype.kind in "iu" else None
    if isinstance(leaf, (list, tuple)) and leaf and all(type(number) is int for number in leaf):
        return list(leaf)
    return None


def grid(leaf: Any) -> Tensor | None:
    """A leaf as a tensor of at least two dimensions, or None if it is something else."""
    if isinstance(leaf, np.ndarray) and leaf.ndim >= 2 and leaf.dtype.kind in "fiub":
        leaf = torch.from_numpy(leaf)
    if isinstance(leaf, Tensor) and not leaf.is_nested and leaf.layout == torch.strided and leaf.dim() >= 2:
        return leaf
    return None


def described(batch: Any) -> str:
    """Description of the batch for an error: its leaves with their kinds and shapes."""
    parts = [f"{spelled(path)}: {_kind(leaf)}" for path, leaf in leaves(batch)]
    if len(parts) > _SHOWN:
        parts[_SHOWN:] = [f"and {len(parts) - _SHOWN} more"]
    return ", ".join(parts) or f"an empty {type(batch).__name__}"


def _parts(value: Any) -> Any:
    """Keys and parts of a container; None for a leaf."""
    if isinstance(value, (Packed, PackedSequence)):
        return None
    if isinstance(value, Mapping):
        return value.items()
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return [(_Field(name), getattr(value, name)) for name in value._fields]  # type: ignore[attr-defined]
    if isinstance(value, (list, tuple)):
        return None if vector(value) is not None else enumerate(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [
            (_Field(field.name), getattr(value, field.name))
            for field in dataclasses.fields(value)
            if hasattr(value, field.name)
        ]
    return None


def _kind(leaf: Any) -> str:
    name = type(leaf).__name__
    if isinstance(leaf, Tensor) and leaf.is_nested:
        return f"nested {name}"  # which has no shape if strided
    if isinstance(leaf, (Tensor, np.ndarray)):
        return f"{name} {tuple(leaf.shape)} {str(leaf.dtype).removeprefix('torch.')}"
    if isinstance(leaf, (list, tuple)):
        return f"{name} of {len(leaf)}"
    return name
