"""Operations along every sequence that keep the number of rows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import peek_interpreter_stack

from ..layout.layout import Layout
from ..layout.rows import move_rows
from ..packed import Packed
from ._kinds import Batch, as_packed, of_kind, owners
from ._sums import check_floating, double, row_sums, sequence_rows, sum_dtype, wide
from .reduce import shifted

__all__ = ["cumsum", "log_softmax", "softmax"]

_WORTH_A_BUFFER = 1 << 20  # bytes: for less, and without gradients, a sum for each step is as fast


def softmax(packed: Batch) -> Batch:
    """Softmax over the rows of every sequence, element by element; same kind and layout.

    Raises:
        TypeError: the data are not floating-point.

    >>> softmax(Packed(torch.tensor([0.0, 0.0, 7.0]), [2, 1])).data
    tensor([0.5000, 0.5000, 1.0000])
    """
    batch = as_packed(packed, "softmax")
    check_floating(batch.data, "softmax")
    if _needs_composed():
        powers = shifted(Packed._of(wide(batch.data), batch._layout))[0].exp()
        rows = powers / sequence_rows(row_sums(powers, batch._layout), batch._layout)
    else:
        rows = _Softmax.apply(wide(batch.data), batch._layout)
    return of_kind(Packed._of(rows.to(batch.dtype), batch._layout), packed)


def _needs_composed() -> bool:
    """Whether to compute with torch operations only: the autograd functions below cannot be compiled or vmapped."""
    return torch.compiler.is_compiling() or peek_interpreter_stack() is not None


class _Softmax(torch.autograd.Function):
    """Softmax with derivative y (g - sum(g y)): two large tensors in backward instead of six."""

    @staticmethod
    def forward(data: Tensor, layout: Layout) -> Tensor:
        batch = Packed._of(data, layout)
        powers = shifted(batch)[0].exp_()
        sums = row_sums(powers, layout)
        return powers.mul_(sums.reciprocal_().index_select(0, owners(batch)))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.layout = inputs
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _Softmax.jvp(ctx, *grads), None  # the Jacobian is symmetric

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        product = tangents[0] * y
        return product - y * sequence_rows(row_sums(product, ctx.layout), ctx.layout)


class _LogSoftmax(torch.autograd.Function):
    """Logarithm of softmax, with derivative g - exp(y) sum(g)."""

    @staticmethod
    def forward(data: Tensor, layout: Layout) -> Tensor:
        batch = Packed._of(data, layout)
        # Two subtractions: subtracting the sum of both would lose the logarithm's digits if the maximum is large.
        rows = shifted(batch)[0]
        powers = rows.exp()
        logs = row_sums(powers, layout).log_()
        return rows.sub_(torch.index_select(logs, 0, owners(batch), out=powers))

    setup_context = _Softmax.setup_context

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        return grads[0] - y.exp() * sequence_rows(row_sums(grads[0], ctx.layout), ctx.layout), None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        (y,) = ctx.saved_tensors
        product = tangents[0] * y.exp()
        return tangents[0] - sequence_rows(row_sums(product, ctx.layout), ctx.layout)


def log_softmax(packed: Batch) -> Batch:
    """Logarithm of the softmax over the rows of every sequence, element by element; same kind and layout.

    Raises:
        TypeError: the data are not floating-point.

    >>> log_softmax(Packed(torch.tensor([0.0, 0.0, 7.0]), [2, 1])).data
    tensor([-0.6931, -0.6931,  0.0000])
    """
    batch = as_packed(packed, "log_softmax")
    check_floating(batch.data, "log_softmax")
    if _needs_composed():
        rows = shifted(Packed._of(wide(batch.data), batch._layout))[0]
        rows = rows - sequence_rows(row_sums(rows.exp(), batch._layout).log(), batch._layout)
    else:
        rows = _LogSoftmax.apply(wide(batch.data), batch._layout)
    return of_kind(Packed._of(rows.to(batch.dtype), batch._layout), packed)


def cumsum(packed: Batch) -> Batch:
    """Cumulative sum of every sequence's rows; same kind and layout; integers are summed in int64.

    One addition per time step over the sequences still running, so no value leaks from one sequence into another.

    >>> cumsum(Packed(torch.tensor([1, 2, 3, 4]), [3, 1])).data
    tensor([1, 3, 6, 4])
    """
    batch = as_packed(packed, "cumsum")
    layout, dtype = batch._layout, sum_dtype(batch.dtype)
    rows = wide(batch.data) if dtype == batch.dtype else batch.data.long()
    if torch.compiler.is_compiling():  # a graph cannot loop over steps
        sums = _GridCumsum.apply(Packed._of(rows, layout).pad()).flatten(0, 1)
        cells = layout.padded(layout.steps, batch_first=True, left=False)
        return of_kind(Packed._of(move_rows(sums, cells.inverted()).to(dtype), layout), packed)
    return of_kind(Packed._of(_running_sums(rows, layout).to(dtype), layout), packed)


def _running_sums(rows: Tensor, layout: Layout, *, from_last: bool = False) -> Tensor:
    """Sums of the rows up to each row, or of those from it on."""
    is_recorded = rows.requires_grad and torch.is_grad_enabled()
    if (
        _needs_composed()
        or torch._C._len_torch_dispatch_stack() > 0
        or (rows.nbytes < _WORTH_A_BUFFER and not is_recorded)
    ):
        return _composed_sums(rows, layout, from_last)
    return _Cumsum.apply(rows, layout, from_last)


def _composed_sums(rows: Tensor, layout: Layout, from_last: bool) -> Tensor:
    steps = double(move_rows(rows, layout.time_major)).split(layout.batch_sizes.tolist())
    if not steps:
        return rows
    sums: list[Tensor] = []
    if from_last:
        for step in reversed(steps):
            joining = step.new_zeros(len(step) - len(sums[-1]) if sums else len(step), *step.shape[1:])
            sums.append(step + (torch.cat([sums[-1], joining]) if sums else joining))
        sums.reverse()
    else:
        for step in steps:
            sums.append(step + sums[-1][: len(step)] if sums else step)
    return move_rows(torch.cat(sums).to(rows.dtype), layout.time_major.inverted())


class _Cumsum(torch.autograd.Function):
    """Running sums in place: one node, and no memory but the result's. Either direction is the other's derivative."""

    @staticmethod
    def forward(rows: Tensor, layout: Layout, from_last: bool) -> Tensor:
        moved = move_rows(rows, layout.time_major)
        running = double(rows.new_zeros(layout.batch, *rows.shape[1:]))
        steps = moved.split(layout.batch_sizes.tolist())
        for step in reversed(steps) if from_last else steps:
            sums = running[: len(step)]
            sums += step
            step.copy_(sums)
        return move_rows(moved, layout.time_major.inverted())

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, ctx.layout, ctx.from_last = inputs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return _running_sums(grads[0], ctx.layout, from_last=not ctx.from_last), None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return _running_sums(tangents[0], ctx.layout, from_last=ctx.from_last)


class _GridCumsum(torch.autograd.Function):
    """`grid.cumsum(1)`; torch's derivative reads the number of elements, which is unknown in a graph."""

    @staticmethod
    def forward(grid: Tensor) -> Tensor:
        return grid.cumsum(1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0].flip(1).cumsum(1).flip(1)
