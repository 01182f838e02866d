"""Cache of packed weights for inference, compared by fingerprint on every call."""

from __future__ import annotations

import os
import threading
import weakref
from collections import OrderedDict
from typing import Any, NamedTuple

from torch import Tensor

from . import _kernels
from .contract import Precision

__all__ = ["packed_forward"]

_KEPT, _KEPT_BYTES = 64, 1 << 28  # limits of the cache: entries, and bytes of all entries together
# Bytes of weights: an LSTM of 64 in float32 is packed in 6 us, and its fingerprint takes 3. In float16 it is converted
# too, which makes 25 us, and its fingerprint takes 6.
_WORTH_KEEPING = 1 << 18
_WORTH_KEEPING_NARROW = 1 << 15


class _Entry(NamedTuple):
    contents: tuple[int, ...]
    packed: Tensor
    memory: list[weakref.ref[Any]]  # of the weights; the first that is freed drops the entry


_kept: OrderedDict[tuple[object, ...], _Entry] = OrderedDict()
_lock = threading.Lock()


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()  # in a forked process, a thread that no longer exists may hold the old lock


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def packed_forward(
    cell: str,
    w_ih: Tensor,
    w_hh: Tensor,
    b_ih: Tensor | None,
    b_hh: Tensor | None,
    w_hr: Tensor | None = None,
    *,
    precision: Precision = "highest",
) -> Tensor:
    """Like `_kernels.pack_forward`, cached as long as the contents of the weights do not change.

    Contents are compared by fingerprint, since version counters miss writes through `.data`. The cache does not keep
    the weights alive, and drops what it packed when their memory is freed.
    """
    least = _WORTH_KEEPING_NARROW if w_ih.dtype in _kernels.NARROW_DTYPES else _WORTH_KEEPING
    if w_ih.nbytes + w_hh.nbytes < least:
        return _kernels.pack_forward(cell, w_ih, w_hh, b_ih, b_hh, w_hr, precision=precision)
    weights = [w for w in (w_ih, w_hh, b_ih, b_hh, w_hr) if w is not None]
    key = (
        cell,
        _kernels.isa(),
        precision,
        w_ih.dtype,
        w_ih.size(1),
        w_hh.shape,
        b_ih is None,
        *(w.data_ptr() for w in weights),
    )
    contents = tuple(_kernels.fingerprint(w) for w in weights)
    with _lock:
        found = _kept.pop(key, None)
        if found is not None and found.contents == contents:
            _kept[key] = found  # now the latest
            return found.packed
    packed = _kernels.pack_forward(cell, w_ih, w_hh, b_ih, b_hh, w_hr, precision=precision)
    # Storages, because a weight may be an alias that ends with this call. They are dropped without the lock, which this
    # thread may hold when memory is freed.
    memory = [weakref.ref(w.untyped_storage(), lambda _: _kept.pop(key, None)) for w in weights]
    with _lock:
        _kept.pop(key, None)
        _kept[key] = _Entry(contents, packed, memory)
        # The last one may be larger than the limit: it is needed in every call, and freed with its layer.
        while len(_kept) > _KEPT or (len(_kept) > 1 and _bytes() > _KEPT_BYTES):
            _kept.popitem(last=False)
    return packed


def _bytes() -> int:
    return sum(entry.packed.nbytes for entry in list(_kept.values()))
