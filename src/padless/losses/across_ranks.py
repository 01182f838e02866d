"""The mean loss over the rows of all ranks, with its exact gradient."""

from __future__ import annotations

import numbers
from typing import Any

import torch
from torch import Tensor

__all__ = ["global_mean"]


def global_mean(loss_sum: Tensor, count: Any, *, process_group: Any = None) -> Tensor:
    """The mean loss per row over all ranks: a scalar, the same on each rank, with an exact gradient.

    DDP and FSDP average gradients over the ranks, so if each rank takes its own mean, the rows of a rank with few
    rows get too much weight. Here every row of the step has the same weight on every rank: the gradient *after* that
    average is the gradient of the returned value.

    If `torch.distributed` is initialised, each call is one collective of two numbers, so all ranks must call it equally
    often, with a count of 0 if they have no rows. Otherwise it returns `loss_sum / count`. It never waits for a device.

    To accumulate gradients over several batches, pass the `loss_sum` of each batch and, for all of them, the same
    `count`: this rank's rows in all batches together. The returned values and their gradients then sum to the mean.

    Args:
        loss_sum: scalar, the sum of the losses of this rank's rows in this batch; part of the graph even if there
            are no rows.
        count: the number of this rank's rows in the whole optimizer step, or the sum of their weights: a number
            or a tensor of one element on any device. No gradient flows into it.
        process_group: the ranks over which DDP averages, if not all.

    Returns:
        The mean, with the dtype and device of `loss_sum`. If no rank has rows, it is 0 with a gradient of 0; a
        nonzero sum over a count of 0 is infinite.

    Raises:
        TypeError: a loss that is not a floating-point tensor, or a count that is not a number.
        ValueError: a loss or count of more than one element, a negative count, or a group without this rank.

    >>> losses = torch.tensor([1.0, 2.0, 6.0], requires_grad=True)
    >>> global_mean(losses.sum(), 3)
    tensor(3., grad_fn=<...>)

    Two batches of one step, 3 rows and 1 row:

    >>> values = [global_mean(batch.sum(), 4) for batch in (losses, torch.tensor([11.0]))]
    >>> sum(value.item() for value in values)
    5.0
    """
    _check_loss_sum(loss_sum)
    # In float64 counts are exact up to 2**53; Apple's GPUs have no float64.
    wide = torch.float32 if loss_sum.device.type == "mps" else torch.float64
    local_sum = loss_sum.reshape(()).to(wide)
    local_count = _as_scalar(count, local_sum)
    ranks = _ranks_of(process_group)
    if ranks == 1:
        return (local_sum / _divisor(local_sum.detach(), local_count)).to(loss_sum.dtype)
    totals = torch.stack([local_sum.detach(), local_count])
    torch.distributed.all_reduce(totals, group=process_group)
    divisor = _divisor(totals[0], totals[1])
    # DDP divides the gradient by the number of ranks.
    return _Mean.apply(local_sum, totals[0] / divisor, ranks / divisor).to(loss_sum.dtype)


class _Mean(torch.autograd.Function):
    """The mean over all ranks, bit-identical on each, with the gradient of this rank's share in it."""

    @staticmethod
    def forward(local_sum: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
        return mean.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[2])
        ctx.save_for_forward(inputs[2])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0] * ctx.saved_tensors[0], None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        return tangents[0] * ctx.saved_tensors[0]


def _check_loss_sum(loss_sum: Any) -> None:
    if not isinstance(loss_sum, Tensor):
        raise TypeError(f"global_mean: loss_sum must be a tensor, got {type(loss_sum).__name__}")
    if not loss_sum.is_floating_point():
        raise TypeError(f"global_mean: loss_sum must be a floating-point tensor, got {loss_sum.dtype}")
    if loss_sum.numel() != 1:
        raise ValueError(
            f"global_mean: loss_sum must be a scalar, the sum over this rank's rows, got shape "
            f"{tuple(loss_sum.shape)}: sum the losses first"
        )


def _as_scalar(count: Any, like: Tensor) -> Tensor:
    """`count` as a scalar with the dtype and device of `like`; its value is checked if it is on the host."""
    if isinstance(count, Tensor):
        if count.numel() != 1:
            raise ValueError(f"global_mean: count must be one number, got shape {tuple(count.shape)}")
        if count.is_complex():
            raise TypeError(f"global_mean: count must be a number, got a tensor of {count.dtype}")
        known = count.device.type == "cpu" and not torch.compiler.is_compiling()
        number = count.item() if known else None
        scalar = count.detach().reshape(()).to(like)
    else:
        if not isinstance(count, numbers.Real):  # includes NumPy's scalars
            raise TypeError(f"global_mean: count must be a number, got {type(count).__name__}")
        number = float(count)
        scalar = torch.full_like(like, number, requires_grad=False)
    if number is not None and not number >= 0:  # also raises for NaN
        raise ValueError(f"global_mean: count must be 0 or more, got {number:g}")
    return scalar


def _ranks_of(process_group: Any) -> int:
    """Number of ranks that share the mean: 1 if `torch.distributed` is not initialised."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return 1
    ranks = torch.distributed.get_world_size(process_group)
    if ranks < 1:
        raise ValueError("global_mean: this rank is not in process_group")
    return ranks


def _divisor(total: Tensor, count: Tensor) -> Tensor:
    """`count`, or 1 if there was nothing to sum."""
    return torch.where((count == 0) & (total == 0), torch.ones_like(count), count)
