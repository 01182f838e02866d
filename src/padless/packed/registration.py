"""Registers `Packed` with torch: as a pytree node, for `torch.load(..., weights_only=True)`, and for compilers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._pytree import GetAttrKey, register_pytree_node

from ..layout import operators as _operators  # noqa: F401 - registers what compiled programs call
from ..layout.checks import as_lengths
from ..layout.layout import Layout
from .value import Packed

__all__: list[str] = []


def _flatten(packed: Packed) -> tuple[list[Any], Layout]:
    return [packed._data], packed._layout


def _flatten_with_keys(packed: Packed) -> tuple[list[tuple[Any, Any]], Layout]:
    return [(GetAttrKey("data"), packed._data)], packed._layout


def _unflatten(leaves: Iterable[Any], layout: Layout) -> Packed:
    (data,) = leaves
    return Packed._of(data, layout)


register_pytree_node(
    Packed,
    _flatten,
    _unflatten,
    serialized_type_name="padless.Packed",
    to_dumpable_context=lambda layout: layout.lengths.tolist(),
    from_dumpable_context=lambda lengths: Layout(as_lengths(lengths)),
    flatten_with_keys_fn=_flatten_with_keys,
)
# torch.load(..., weights_only=True) may call it, also under the name in older files.
torch.serialization.add_safe_globals([Packed, (Packed, "padless._packed.Packed")])
