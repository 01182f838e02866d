"""`collate`: turns samples into a batch, with a `Packed` for each field that is a sequence."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..layout.checks import for_torch
from ..packed import Packed

__all__ = ["collate"]


def collate(samples: Sequence[Any], *, stack: str | int | Iterable[str | int] = ()) -> Any:
    """The batch of `samples`, structured like one of them, with a `Packed` for each field that is a sequence.

    Use it as the `collate_fn` of a `DataLoader`. What a field becomes depends only on its type, so it is the same in
    every batch, whatever its lengths:

    - a tensor or NumPy array with a dimension, or a list of numbers: a sequence `(len, *)`, so a `Packed`;
    - an empty list: a sequence of length 0 with the dtype and width of the others. Where all lists of a batch are
      empty they are taken for ids, int64 `(0,)`; pass tensors where they are something else;
    - a number, or a tensor or array without dimensions: a tensor `(B,)`;
    - a mapping, tuple or named tuple: a dict, tuple or the same named tuple, with each field collated;
    - anything else, such as a string: a list of B values.

    Args:
        samples: B samples, at least one, all of the same structure.
        stack: fields that are arrays of one shape instead of sequences, to be stacked to `(B, *)`: a name, or several
            keys, or positions in a tuple; `"meta.image"` is a field of a field.

    Raises:
        TypeError, ValueError: samples of different structure (the message names sample and field), no samples,
            masked entries, or a field of `stack` that does not exist or is not an array.

    >>> batch = collate([{"x": torch.tensor([1.0, 2.0]), "y": 0}, {"x": torch.tensor([3.0]), "y": 1}])
    >>> batch["x"], batch["y"]
    (Packed(B=2, N=3, T=2, fill=0.75, shape=(3,), dtype=torch.float32), tensor([0, 1]))
    """
    samples = list(samples)
    if not samples:
        raise ValueError("collate needs at least one sample, got none")
    names = [stack] if isinstance(stack, (str, int)) else stack
    collation = _Collation({str(name) for name in names})
    batch = collation.field(samples, "")
    if unknown := sorted(collation.stacked - collation.seen):
        fields = ", ".join(sorted(collation.seen - {""})) or "none"
        raise ValueError(f"stack names {unknown[0]!r}, but the fields are: {fields}")
    return batch


class _Collation:
    """One call of `collate`: the fields to stack, and the fields found so far."""

    def __init__(self, stacked: set[str]) -> None:
        self.stacked = stacked
        self.seen: set[str] = set()

    def field(self, values: list[Any], name: str) -> Any:
        """The batch of the values of field `name`, one per sample; the name of the sample itself is empty."""
        kind = _kind_of(values[0])
        for i, value in enumerate(values):
            if _kind_of(value) != kind:
                raise TypeError(
                    f"{_where(i, name)} is {_described(value)}, but {_where(0, name)} is {_described(values[0])}"
                )
        if name in self.stacked and kind not in ("sequence", "number"):
            raise TypeError(
                f"stack names {name!r}, but {_where(0, name)} is {_described(values[0])}, not an array"
            )
        if kind == "dict":
            return self._dict(values, name)
        if kind == "tuple":
            return self._tuple(values, name)
        self.seen.add(name)
        if kind in ("number", "sequence"):
            _refuse_masked(values, name)
        if kind == "number":
            return _numbers(values, name)
        if kind == "sequence":
            return _stacked(values, name) if name in self.stacked else _packed(values, name)
        return values

    def _dict(self, values: list[Any], name: str) -> dict[Any, Any]:
        keys = values[0].keys()
        for i, value in enumerate(values):
            for key in keys ^ value.keys():
                has, lacks = (i, 0) if key in value else (0, i)
                raise ValueError(
                    f"{_where(has, name)} has a field {key!r}, but {_where(lacks, name)} does not"
                )
        return {key: self.field([value[key] for value in values], _within(name, key)) for key in keys}

    def _tuple(self, values: list[Any], name: str) -> tuple[Any, ...]:
        first = values[0]
        for i, value in enumerate(values):
            if getattr(value, "_fields", None) != getattr(first, "_fields", None):
                raise TypeError(
                    f"{_where(i, name)} is {_spelled(value)}, but {_where(0, name)} is {_spelled(first)}"
                )
            if len(value) != len(first):
                raise ValueError(
                    f"{_where(i, name)} has {len(value)} fields, but {_where(0, name)} has {len(first)}"
                )
        names = getattr(first, "_fields", range(len(first)))
        fields = [
            self.field(list(column), _within(name, part))
            for part, column in zip(names, zip(*values, strict=True), strict=True)
        ]
        return type(first)(*fields) if hasattr(first, "_fields") else tuple(fields)


def _kind_of(value: Any) -> str:
    if isinstance(value, (Tensor, np.ndarray)):
        return "sequence" if value.ndim else "number"
    if isinstance(value, (str, bytes)):
        return "other"
    if isinstance(value, (bool, int, float, complex, np.number, np.bool_)):
        return "number"
    if isinstance(value, Mapping):
        return "dict"
    if isinstance(value, tuple):
        return "tuple"
    return "sequence" if isinstance(value, list) else "other"


def _refuse_masked(values: list[Any], name: str) -> None:
    for i, value in enumerate(values):
        if np.ma.is_masked(value):
            raise ValueError(
                f"{_where(i, name)} has masked entries, which tensors cannot have; fill or drop them"
            )


def _packed(values: list[Any], name: str) -> Packed:
    lengths = [len(value) for value in values]
    if all(isinstance(value, np.ndarray) for value in values):
        _check_rows(values, name)
        # One copy of all instead of one per array.
        return Packed(_as_tensor(np.concatenate(values), 0, name), lengths)
    tensors = _as_tensors(values, name)
    _check_rows(tensors, name)
    return Packed(torch.cat(tensors), lengths)


def _stacked(values: list[Any], name: str) -> Tensor:
    tensors = _as_tensors(values, name)
    _check(tensors, name, "shape", lambda tensor: tuple(tensor.shape), "; stacked arrays must have one shape")
    _check_rows(tensors, name)
    return torch.stack(tensors)


def _numbers(values: list[Any], name: str) -> Tensor:
    tensors = _as_tensors(values, name)
    _check_rows(tensors, name)
    return torch.stack(tensors)


def _check_rows(values: list[Any], name: str) -> None:
    """Raise unless all values, arrays or tensors, could be rows of one tensor."""
    _check(values, name, "rows of shape", lambda value: tuple(value.shape[1:]))
    _check(values, name, "dtype", lambda value: value.dtype)
    _check(values, name, "device", lambda value: getattr(value, "device", "cpu"))


def _check(values: list[Any], name: str, what: str, of: Callable[[Any], Any], why: str = "") -> None:
    first = of(values[0])
    for i, value in enumerate(values):
        if (got := of(value)) != first:
            raise ValueError(f"{_where(i, name)} has {what} {got}, but {_where(0, name)} has {first}{why}")


def _as_tensors(values: list[Any], name: str) -> list[Tensor]:
    """The values as tensors; an empty list, which has no dtype, takes that of the first non-empty one, or int64."""
    tensors = [_as_tensor(value, i, name) for i, value in enumerate(values)]
    empty = [isinstance(value, list) and not value for value in values]
    if any(empty):
        like = torch.zeros(0, dtype=torch.int64) if all(empty) else tensors[empty.index(False)][:0]
        tensors = [like if nothing else tensor for nothing, tensor in zip(empty, tensors, strict=True)]
    return tensors


def _as_tensor(value: Any, i: int, name: str) -> Tensor:
    if isinstance(value, Tensor):
        if value.is_nested:
            raise TypeError(f"{_where(i, name)} is a nested tensor; pass its sequences one by one")
        return value
    if isinstance(value, np.ndarray):
        value = for_torch(value)
    if isinstance(value, np.generic):
        value = np.asarray(value)  # torch 2.6 does not take NumPy's bool
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        hint = "; a list must hold numbers" if isinstance(value, list) else ""
        raise TypeError(f"{_where(i, name)} cannot be a tensor: {error}{hint}") from error


def _where(i: int, name: str) -> str:
    return f"field {name!r} of sample {i}" if name else f"sample {i}"


def _within(name: str, part: Any) -> str:
    return f"{name}.{part}" if name else str(part)


def _spelled(value: tuple[Any, ...]) -> str:
    """The type of a tuple, with its names if it has some."""
    names = getattr(value, "_fields", None)
    return "a plain tuple" if names is None else f"{type(value).__name__}({', '.join(names)})"


def _described(value: Any) -> str:
    kind, name = _kind_of(value), type(value).__name__
    return f"a {kind} ({name})" if kind in ("sequence", "number") else f"a {name}"
