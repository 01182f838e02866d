"""Reductions: one row per sequence, `(B, *)`, in the caller's order."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from ..layout.layout import Layout
from ..layout.walks import is_transformed
from ..packed import Packed
from ._kinds import Batch, as_packed, owners
from ._sums import check_floating, lengths_on, owners_on, row_sums, sum_dtype, wide

__all__ = ["logsumexp", "max", "mean", "min", "prod", "shifted", "sum"]


def sum(packed: Batch) -> Tensor:  # noqa: A001
    """Sum of every sequence's rows, `(B, *)`; 0 for length 0.

    Args:
        packed: data `(N, *)`; integers and booleans are summed in int64, as in torch.

    >>> from padless import Packed
    >>> sum(Packed(torch.tensor([1, 2, 3, 4]), [3, 0, 1]))
    tensor([6, 0, 4])
    """
    batch = as_packed(packed, "sum")
    return row_sums(batch.data, batch._layout).to(sum_dtype(batch.dtype))


def mean(packed: Batch) -> Tensor:
    """Mean of every sequence's rows, `(B, *)`; 0 for length 0.

    Raises:
        TypeError: the data are not floating-point or complex.

    >>> from padless import Packed
    >>> mean(Packed(torch.tensor([1.0, 2.0, 3.0, 4.0]), [3, 0, 1]))
    tensor([2., 0., 4.])
    """
    batch = as_packed(packed, "mean")
    check_floating(batch.data, "mean", allow_complex=True)
    counts = lengths_on(batch._layout, batch.device).clamp(min=1)
    sums = row_sums(batch.data, batch._layout)
    return (sums / counts.view(-1, *(1,) * (sums.dim() - 1))).to(batch.dtype)


def max(packed: Batch) -> Tensor:  # noqa: A001
    """Maximum of every sequence, element by element, `(B, *)`; -inf, or the dtype's lowest value, for length 0.

    The gradient is divided among ties, as in `torch.amax`.

    >>> from padless import Packed
    >>> max(Packed(torch.tensor([1.0, 5.0, 3.0, 4.0]), [3, 0, 1]))
    tensor([5., -inf, 4.])
    """
    return _extreme(as_packed(packed, "max"), "amax")


def min(packed: Batch) -> Tensor:  # noqa: A001
    """Minimum of every sequence, element by element, `(B, *)`; inf, or the dtype's highest value, for length 0.

    >>> from padless import Packed
    >>> min(Packed(torch.tensor([1, 5, 3, 4]), [3, 1]))
    tensor([1, 4])
    """
    return _extreme(as_packed(packed, "min"), "amin")


def prod(packed: Batch) -> Tensor:
    """Product of every sequence's rows, `(B, *)`; 1 for length 0.

    Gradients are exact even if factors are 0 or a product underflows.

    >>> from padless import Packed
    >>> prod(Packed(torch.tensor([1, 2, 3, 4]), [3, 0, 1]))
    tensor([6, 1, 4])
    """
    batch = as_packed(packed, "prod")
    rows = wide(batch.data)
    if not rows.is_floating_point() and not rows.is_complex():
        rows = rows.long()
    if torch.compiler.is_compiling():  # a graph cannot branch on whether a factor is 0
        return _GridProd.apply(Packed._of(rows, batch._layout).pad(1)).to(sum_dtype(batch.dtype))
    product = (_tree_of_products if is_transformed() else _Prod.apply)(rows, batch._layout)
    return product.to(sum_dtype(batch.dtype))


class _GridProd(torch.autograd.Function):
    """`grid.prod(1)`; the derivative is the product of the factors before times the product of those after."""

    @staticmethod
    def forward(grid: Tensor) -> Tensor:
        return grid.prod(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (grid,) = ctx.saved_tensors
        one = torch.ones_like(grid[:, :1])
        before = torch.cat([one, grid[:, :-1]], 1).cumprod(1)
        after = torch.cat([grid[:, 1:], one], 1).flip(1).cumprod(1).flip(1)
        return grads[0].unsqueeze(1) * (before * after).conj()


class _Prod(torch.autograd.Function):
    """Products; the derivative is product / factor, or that of a tree of products if it cannot be divided."""

    @staticmethod
    def forward(rows: Tensor, layout: Layout) -> Tensor:
        if rows.is_complex():
            return _tree_of_products(rows, layout)
        index = _per_element(Packed._of(rows, layout))
        return rows.new_ones(layout.batch, *rows.shape[1:]).scatter_reduce_(0, index, rows, "prod")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        rows, ctx.layout = inputs
        ctx.save_for_backward(rows, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, product = ctx.saved_tensors
        if torch.is_grad_enabled() or rows.is_complex() or not _can_be_divided(product, grads[0]):
            with torch.enable_grad():
                leaf = (
                    rows if torch.is_grad_enabled() and rows.requires_grad else rows.detach().requires_grad_()
                )
                products = _tree_of_products(leaf, ctx.layout)
                create_graph = rows.requires_grad or grads[0].requires_grad
                return torch.autograd.grad(products, leaf, grads[0], create_graph=create_graph)[0], None
        of_row = owners_on(ctx.layout, rows.device)
        return (grads[0] * product).index_select(0, of_row).div_(rows), None


def _can_be_divided(product: Tensor, grad: Tensor) -> bool:
    """Whether no product is 0 or has lost bits, alone or multiplied by its gradient."""
    info, scaled = torch.finfo(product.dtype), (product * grad).abs()
    is_exact = (product.abs() >= info.tiny) & product.isfinite()
    is_exact &= ((scaled >= info.tiny) & (scaled <= info.max)) | (grad == 0)
    return bool(is_exact.all())  # synchronises if the rows are on a device


def _tree_of_products(rows: Tensor, layout: Layout) -> Tensor:
    """Multiplies neighbouring rows, then neighbouring products: differentiable even if factors are 0."""
    lengths = layout.lengths
    while lengths.numel() and int(lengths.max()) > 1:
        halves = (lengths + 1) // 2
        ends, half_ends = lengths.cumsum(0), halves.cumsum(0)
        place = torch.arange(int(half_ends[-1]), device="cpu") - (half_ends - halves).repeat_interleave(
            halves
        )
        left = (ends - lengths).repeat_interleave(halves) + 2 * place
        has_right = left + 1 < ends.repeat_interleave(halves)
        pairs = has_right.nonzero().squeeze(1)
        factors = rows.index_select(0, left.to(rows.device))
        right = rows.index_select(0, (left[pairs] + 1).to(rows.device))
        at = pairs.to(rows.device)
        rows = factors.index_copy(0, at, factors.index_select(0, at) * right)
        lengths = halves
    result = rows.new_ones(lengths.numel(), *rows.shape[1:])
    there = lengths.nonzero().squeeze(1).to(rows.device)
    return result.index_copy(0, there, rows)


def logsumexp(packed: Batch) -> Tensor:
    """log(sum(exp(rows))) of every sequence, `(B, *)`; -inf for length 0. Large values do not overflow.

    Args:
        packed: data `(N, *)`; integers and booleans give torch's default dtype, as in `torch.logsumexp`.

    >>> from padless import Packed
    >>> logsumexp(Packed(torch.tensor([0.0, 0.0, 1000.0]), [2, 0, 1]))
    tensor([6.9315e-01, -inf, 1.0000e+03])
    """
    batch = as_packed(packed, "logsumexp")
    if not batch.data.is_floating_point() and not batch.data.is_complex():
        batch = batch.to(torch.get_default_dtype())
    rows, largest = shifted(batch, finite=True)
    sums = row_sums(rows.exp_(), batch._layout)
    is_empty = sums == 0  # no rows, or only -inf
    logs = sums.masked_fill(is_empty, 1).log() + largest
    return logs.masked_fill(is_empty, -torch.inf).to(batch.dtype)


def shifted(batch: Packed, *, finite: bool = False) -> tuple[Tensor, Tensor]:
    """Rows minus the maximum of their sequence `(N, *)`, and that maximum `(B, *)`, a constant for autograd.

    Of complex rows it is the maximum of their real parts. With `finite` an infinite maximum is replaced by 0; otherwise
    infinity minus itself is NaN.
    """
    rows = wide(batch.data)
    heights = rows.detach().real if rows.is_complex() else rows.detach()
    largest = _extreme(Packed._of(heights, batch._layout), "amax")
    if finite:
        largest = largest.masked_fill(largest.isinf(), 0)
    of_row = largest.index_select(0, owners(batch))
    if rows.is_complex():
        return rows - of_row, largest
    return of_row.neg_().add_(rows), largest  # in place: new memory costs more than the arithmetic


def _extreme(batch: Packed, kind: Literal["amax", "amin"]) -> Tensor:
    rows, is_max = batch.data, kind == "amax"
    if rows.is_complex():
        raise TypeError(f"{kind[1:]} takes data that have an order, got {batch.dtype}")
    if rows.dtype == torch.bool:
        return _extreme(batch.map(lambda flags: flags.to(torch.uint8)), kind).bool()
    shape, index = (len(batch), *rows.shape[1:]), _per_element(batch)
    if rows.is_floating_point():
        # Start with NaN, which ties with nothing: otherwise torch would give the start a share of the gradient.
        result = rows.new_full(shape, torch.nan).scatter_reduce(0, index, rows, kind, include_self=False)
        is_empty = (lengths_on(batch._layout, rows.device) == 0).view(-1, *(1,) * (rows.dim() - 1))
        return result.masked_fill(is_empty, -torch.inf if is_max else torch.inf)
    info = torch.iinfo(rows.dtype)
    return rows.new_full(shape, info.min if is_max else info.max).scatter_reduce(
        0, index, rows, kind, include_self=False
    )


def _per_element(batch: Packed) -> Tensor:
    """The sequence of every element, `(N, *)`, without allocating that size."""
    return owners(batch).view(-1, *(1,) * (batch.data.dim() - 1)).expand_as(batch.data)
