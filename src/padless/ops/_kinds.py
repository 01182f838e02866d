"""Opens both kinds of input as a `Packed`, and returns results as the kind that came in."""

from __future__ import annotations

from typing import Any, TypeVar, cast

from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..packed import Packed

__all__ = ["Batch", "of_kind", "opened", "owners"]

Batch = TypeVar("Batch", Packed, PackedSequence)


def opened(batch: Any, name: str) -> Packed:
    """The batch as a `Packed`, in the caller's order.

    Raises:
        TypeError: neither a `Packed` nor a `PackedSequence`.
    """
    if isinstance(batch, PackedSequence):
        return Packed.from_packed_sequence(batch)
    if not isinstance(batch, Packed):
        raise TypeError(f"{name} takes a Packed or a PackedSequence, got {type(batch).__name__}")
    return batch


def of_kind(result: Packed, batch: Batch) -> Batch:
    """The result as a `PackedSequence` if `batch` is one."""
    return cast(Batch, result.to_packed_sequence() if isinstance(batch, PackedSequence) else result)


def owners(packed: Packed) -> Tensor:
    """`(N,)` the sequence of each row, on the data's device."""
    return packed._layout.owners.to(packed.device)
