"""The precision of products in the native kernels, chosen by the rows' dtype and torch's float32 setting."""

from __future__ import annotations

from typing import cast

import torch

from . import _kernels
from .contract import Precision

__all__ = ["precision_of"]

_NAMES: dict[str, Precision] = {"ieee": "highest", "tf32": "high", "bf16": "medium"}


def precision_of(dtype: torch.dtype) -> Precision:
    """The precision in which the kernels currently multiply rows of this dtype.

    `"medium"`: products of bfloat16 numbers, for bfloat16 rows on AMX and, on AMD's processors, vdpbf16ps. float32
    rows follow `torch.backends.mkldnn.rnn.fp32_precision` or, if that is not set,
    `torch.get_float32_matmul_precision()`; `"high"` needs AMX. Without such a unit, and for every other dtype:
    `"highest"`, products of float32 or float64 numbers.
    """
    if dtype is not torch.float32 and dtype is not torch.bfloat16:
        return "highest"
    if not _kernels.computes("medium"):
        return "highest"
    if dtype is torch.bfloat16:
        return "medium"
    own = getattr(getattr(torch.backends.mkldnn, "rnn", None), "fp32_precision", "none")  # torch 2.9 or newer
    asked = _NAMES.get(own) or cast(Precision, torch.get_float32_matmul_precision())
    return asked if _kernels.computes(asked) else "highest"
