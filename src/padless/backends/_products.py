"""Matrix products, computed by the faster of the two libraries inside torch.

On the CPU `torch.mm` is MKL, which uses only AVX2 on AMD processors: 102 GFLOP/s, while oneDNN with AVX-512
reaches 228 (Zen 5, one thread, 1024 cubed, float32). torch offers oneDNN for dense float32 only through
the operator that its compiler emits. It costs about 13 us per call, so small products stay with MKL.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["add_product", "linear", "weight_gradient", "write_product"]

# Below about a million multiply-adds, or with fewer than 4 rows, the call costs more than it saves. oneDNN and MKL at
# (M, K, N) = (16, 128, 512): 20 and 26 us, (8, 128, 512): 16 and 16, (1, 256, 1024): 27 and 13.
_SMALLEST = 1 << 20


def _find_onednn() -> Callable[..., Tensor] | None:
    """The product of oneDNN, if it is here and faster than MKL's: only with AVX-512 (Zen 3: MKL 90 GF/s, oneDNN 69)."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return None
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    # `.default` binds the overload once: resolving it again costs some microseconds per call.
    return torch.ops.mkldnn._linear_pointwise.default


_onednn = _find_onednn()


def _onednn_for(x: Tensor, columns: int) -> Callable[..., Tensor] | None:
    """The product of oneDNN if it is the faster one for x `(M, K)` and so many columns."""
    rows, depth = x.shape
    is_faster = (
        x.dtype == torch.float32
        and rows >= 4
        and rows * depth * columns >= _SMALLEST
        and x.device.type == "cpu"
        and torch.backends.mkldnn.enabled
    )
    return _onednn if is_faster else None


def linear(x: Tensor, w: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ w.T + bias`, `(M, N)`; x `(M, K)`, w `(N, K)`, bias `(N,)`. Not differentiable."""
    onednn = _onednn_for(x, w.shape[0])
    if onednn is not None:
        return onednn(x, w, bias, "none", [], "")
    return torch.mm(x, w.t()) if bias is None else torch.addmm(bias, x, w.t())


def add_product(out: Tensor, x: Tensor, w_t: Tensor) -> None:
    """`out += x @ w_t`, `(M, N)`; x `(M, K)`, w_t `(K, N)`. Not differentiable."""
    onednn = _onednn_for(x, w_t.shape[1])
    if onednn is not None:
        out.add_(onednn(x, w_t.t(), None, "none", [], ""))
    else:
        out.addmm_(x, w_t)


def write_product(out: Tensor, x: Tensor, w_t: Tensor) -> None:
    """`out = x @ w_t`, where out shares no memory with the others; shapes as in `add_product`. Not differentiable."""
    onednn = _onednn_for(x, w_t.shape[1])
    if onednn is not None:
        out.copy_(onednn(x, w_t.t(), None, "none", [], ""))
    else:
        torch.mm(x, w_t, out=out)


def weight_gradient(d: Tensor, x: Tensor) -> Tensor:
    """`d.T @ x`, `(G, I)`, contiguous: a weight's gradient from d `(N, G)` and x `(N, I)`. Not differentiable.

    oneDNN copies transposed arguments, and copies least if the narrow one comes first: N=4800, G=1024, I=256
    takes 12.9 ms this way, 17.0 the other way round, 26.0 with torch.mm.
    """
    onednn = _onednn_for(x.t(), d.shape[1])
    return (
        torch.mm(d.t(), x) if onednn is None else onednn(x.t(), d.t(), None, "none", [], "").t().contiguous()
    )
