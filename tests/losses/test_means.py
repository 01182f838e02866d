"""`global_mean` against the mean of all rows, computed in float64 by one process, with one to four processes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

from padless.losses import global_mean

from ..ranks_kit import Ranks

WIDTH = 3

# counts[k][r]: rows of rank r in batch k of one optimizer step
Counts = list[list[int]]


def rows_of(counts: Counts, dtype: torch.dtype) -> list[list[Tensor]]:
    """Rows `(counts[k][r], WIDTH)` for every batch and rank: the same whoever asks."""
    generator = torch.Generator().manual_seed(7)
    return [
        [torch.randn(n, WIDTH, generator=generator, dtype=torch.float64).to(dtype) for n in batch]
        for batch in counts
    ]


def row_losses(model: torch.nn.Module, rows: Tensor) -> Tensor:
    return (model(rows) - rows.sum(1, keepdim=True)).square().sum(1)


def new_model(dtype: torch.dtype) -> torch.nn.Module:
    model = torch.nn.Linear(WIDTH, 2, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(torch.arange(2.0 * WIDTH).view(2, WIDTH) / 5)
        model.bias.fill_(0.25)
    return model


def gradients(model: torch.nn.Module) -> list[Tensor]:
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def whole(counts: Counts) -> tuple[float, list[Tensor]]:
    """Mean over all rows and its gradients, in float64."""
    model = new_model(torch.float64)
    rows = torch.cat([rows for batch in rows_of(counts, torch.float64) for rows in batch])
    mean = row_losses(model, rows).mean() if len(rows) else row_losses(model, rows).sum()
    mean.backward()
    return mean.item(), gradients(model)


def step_of_a_rank(counts: Counts, dtype: torch.dtype, wants_no_sync: bool) -> Any:
    """Value and gradients, after DDP averaged them, of one optimizer step of several batches."""
    model = DistributedDataParallel(new_model(dtype))
    rank = distributed.get_rank()
    mine = [batch[rank] for batch in rows_of(counts, dtype)]
    count = sum(map(len, mine))
    value = 0.0
    for k, rows in enumerate(mine):
        syncs = k == len(mine) - 1 or not wants_no_sync
        with nullcontext() if syncs else model.no_sync():
            mean = global_mean(row_losses(model, rows).sum(), torch.tensor(count) if k % 2 else count)
            mean.backward()
        value += mean.item()
    return value, gradients(model)


def assert_near(got: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for ours, theirs in zip(got, expected, strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        assert float((ours.double() - theirs).abs().max()) <= tolerance * scale


# --- several processes ----------------------------------------------------------------------------

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-13}


@pytest.mark.parametrize("world_size", [1, 2, 4])
@given(data=st.data(), dtype=st.sampled_from([torch.float32, torch.float64]), wants_no_sync=st.booleans())
@settings(max_examples=10)
def test_the_gradient_that_ddp_averages_is_that_of_the_mean_of_all_rows(
    ranks: Callable[[int], Ranks],
    world_size: int,
    data: st.DataObject,
    dtype: torch.dtype,
    wants_no_sync: bool,
) -> None:
    batch = st.lists(st.integers(0, 6), min_size=world_size, max_size=world_size)
    counts = data.draw(st.lists(batch, min_size=1, max_size=3))
    value, expected = whole(counts)
    for got_value, got in ranks(world_size).run(step_of_a_rank, counts, dtype, wants_no_sync):
        assert abs(got_value - value) <= TOLERANCE[dtype] * max(1.0, abs(value))
        assert_near(got, expected, TOLERANCE[dtype])


def test_a_mean_that_each_rank_takes_alone_is_not_that_of_all_rows(ranks: Callable[[int], Ranks]) -> None:
    # What global_mean is for; and the comparison above can fail.
    _, expected = whole([[1, 6]])
    (got, _) = ranks(2).run(gradient_of_local_means, [[1, 6]])
    with pytest.raises(AssertionError):
        assert_near(got, expected, 1e-2)


def gradient_of_local_means(counts: Counts) -> list[Tensor]:
    model = DistributedDataParallel(new_model(torch.float64))
    row_losses(model, rows_of(counts, torch.float64)[0][distributed.get_rank()]).mean().backward()
    return gradients(model)


def value_of_a_rank() -> Any:
    rank = distributed.get_rank()
    losses = (torch.arange(5.0) + 0.1 * rank).requires_grad_()
    mean = global_mean(losses.sum() / 3, rank)
    return mean.item(), mean.dtype, mean.requires_grad


def test_the_value_has_the_same_bits_on_every_rank(ranks: Callable[[int], Ranks]) -> None:
    values = ranks(4).run(value_of_a_rank)
    assert len(set(values)) == 1
    assert values[0] == (pytest.approx((40 + 5 * 0.6) / 3 / 6), torch.float32, True)


def extremes_of_a_rank() -> Any:
    rank = distributed.get_rank()
    loss = torch.tensor(float(rank)).requires_grad_()
    nothing = global_mean(loss * 0, 0)
    nothing.backward()
    return nothing.item(), loss.grad, global_mean(loss, 0).item(), global_mean(loss * float("nan"), 1).item()


def test_nothing_counted_anywhere_is_0_and_a_sum_over_a_count_of_0_is_infinite(
    ranks: Callable[[int], Ranks],
) -> None:
    for nothing, gradient, infinite, nan in ranks(2).run(extremes_of_a_rank):
        assert nothing == 0 and gradient == 0
        assert not np.isfinite(infinite)
        assert np.isnan(nan)


def infinities_of_a_rank() -> Any:
    rank = distributed.get_rank()
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    results = []
    for factor, count in ((rank, 0), (float("inf") if rank == 0 else 1.0, 1), (-1.0, 0)):
        mean = global_mean(weight * factor, count)
        results.append((mean.item(), torch.autograd.grad(mean, weight)[0].item()))
    return results


def test_an_infinite_mean_is_that_of_one_process_on_every_rank(ranks: Callable[[int], Ranks]) -> None:
    weight = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    expected = []
    for factor, count in ((0 + 1, 0), (float("inf") + 1, 2), (-1.0 + -1.0, 0)):
        mean = global_mean(weight * factor, count)
        expected.append((mean.item(), torch.autograd.grad(mean, weight)[0].item()))
    answers = ranks(2).run(infinities_of_a_rank)
    for answer in answers:
        assert [value for value, _ in answer] == [value for value, _ in expected]
    sums = [sum(answer[i][1] for answer in answers) for i in range(1, 3)]
    assert sums == [gradient for _, gradient in expected[1:]]  # what DDP averages


def forward_derivative_of_a_rank() -> float:
    rank = distributed.get_rank()
    with warnings.catch_warnings(), torch.autograd.forward_ad.dual_level():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit's own
        dual = torch.autograd.forward_ad.make_dual(torch.tensor(3.0), torch.tensor(1.0))
        mean = global_mean(dual * (rank + 1), 1 + 2 * rank)
        return torch.autograd.forward_ad.unpack_dual(mean).tangent.item()


def test_it_has_a_forward_derivative(ranks: Callable[[int], Ranks]) -> None:
    assert ranks(2).run(forward_derivative_of_a_rank) == [0.5, 1.0]


def means_of_groups() -> Any:
    rank = distributed.get_rank()
    groups = [distributed.new_group([0, 1]), distributed.new_group([2, 3])]
    model = DistributedDataParallel(new_model(torch.float64), process_group=groups[rank // 2])
    rows = rows_of([[1, 4, 2, 3]], torch.float64)[0][rank]
    mean = global_mean(row_losses(model, rows).sum(), len(rows), process_group=groups[rank // 2])
    mean.backward()
    try:
        global_mean(mean.detach(), 1, process_group=groups[1 - rank // 2])
    except ValueError as error:
        return mean.item(), gradients(model), str(error)
    raise AssertionError("a group without this rank was accepted")


def test_a_group_of_ranks_has_a_mean_of_its_own(ranks: Callable[[int], Ranks]) -> None:
    rows = rows_of([[1, 4, 2, 3]], torch.float64)[0]
    for rank, (value, got, error) in enumerate(ranks(4).run(means_of_groups)):
        model = new_model(torch.float64)
        mean = row_losses(model, torch.cat(rows[:2] if rank < 2 else rows[2:])).mean()
        mean.backward()
        assert value == pytest.approx(mean.item(), rel=1e-13)
        assert_near(got, gradients(model), 1e-13)
        assert error == "global_mean: this rank is not in process_group"


def second_order_of_a_rank() -> Tensor:
    """The gradient of the squared norm of this rank's own gradient."""
    weight = torch.tensor([0.5, -2.0], dtype=torch.float64, requires_grad=True)
    rank = distributed.get_rank()
    mean = global_mean((weight**3).sum() * (rank + 1), 1 + 2 * rank)
    (first,) = torch.autograd.grad(mean, weight, create_graph=True)
    return torch.autograd.grad(first.square().sum(), weight)[0]


def test_it_can_be_differentiated_twice(ranks: Callable[[int], Ranks]) -> None:
    weight = torch.tensor([0.5, -2.0], dtype=torch.float64)
    for rank, got in enumerate(ranks(2).run(second_order_of_a_rank)):
        scale = 2 * (rank + 1) / 4
        torch.testing.assert_close(got, (scale * 3) ** 2 * 4 * weight**3)


# --- one process ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "count",
    [
        4,
        4.0,
        np.int64(4),
        np.float32(4),
        torch.tensor(4),
        torch.tensor([4], dtype=torch.int32),
        torch.tensor(4.0),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_alone_it_is_the_sum_over_the_count(count: Any, dtype: torch.dtype) -> None:
    loss = torch.tensor(6.0, dtype=dtype, requires_grad=True)
    mean = global_mean(loss, count)
    mean.backward()
    assert mean.dtype == dtype and mean.shape == () and mean.item() == 1.5
    assert loss.grad is not None and loss.grad.item() == 0.25


def test_a_count_that_its_loss_could_not_hold_is_exact() -> None:
    # bfloat16 has 8 bits: as such, a count of 257 would be 256.
    loss = torch.tensor(2.0**16, dtype=torch.bfloat16)
    assert global_mean(loss, torch.tensor(257)).item() == 255.0 == global_mean(loss, 257).item()


def test_weights_may_be_counted() -> None:
    assert global_mean(torch.tensor(0.5), torch.tensor(0.25)).item() == 2.0


def test_no_gradient_flows_into_the_count() -> None:
    weights = torch.tensor([1.0, 3.0], requires_grad=True)
    mean = global_mean(torch.tensor(2.0, requires_grad=True), weights.sum())
    mean.backward()
    assert weights.grad is None


def test_no_rows_alone_are_0_with_a_gradient_of_0() -> None:
    losses = torch.zeros(0, requires_grad=True)
    weight = torch.ones((), requires_grad=True)
    mean = global_mean((losses * weight).sum(), 0)
    mean.backward()
    assert mean.item() == 0 and weight.grad == 0


def test_a_sum_over_no_rows_is_infinite() -> None:
    assert global_mean(torch.tensor(3.0), 0).item() == float("inf")


@pytest.mark.parametrize(
    ("loss_sum", "count", "error", "message"),
    [
        (3.0, 1, TypeError, "loss_sum must be a tensor, got float"),
        (torch.tensor(3), 1, TypeError, "loss_sum must be a floating-point tensor, got torch.int64"),
        (
            torch.zeros(5),
            1,
            ValueError,
            r"loss_sum must be a scalar, the sum over this rank's rows, got shape \(5,\): sum the losses first",
        ),
        (torch.tensor(1.0), torch.ones(2), ValueError, r"count must be one number, got shape \(2,\)"),
        (torch.tensor(1.0), "4", TypeError, "count must be a number, got str"),
        (torch.tensor(1.0), None, TypeError, "count must be a number, got NoneType"),
        (
            torch.tensor(1.0),
            torch.tensor(1j),
            TypeError,
            "count must be a number, got a tensor of torch.complex64",
        ),
        (torch.tensor(1.0), -1, ValueError, r"count must be 0 or more, got -1"),
        (torch.tensor(1.0), torch.tensor(-3), ValueError, "count must be 0 or more, got -3"),
        (torch.tensor(1.0), float("nan"), ValueError, "count must be 0 or more, got nan"),
    ],
)
def test_what_is_no_sum_or_no_count_is_refused(
    loss_sum: Any, count: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=f"^global_mean: {message}$"):
        global_mean(loss_sum, count)


def test_it_compiles_as_one_graph() -> None:
    loss = torch.tensor(6.0, requires_grad=True)
    compiled = torch.compile(lambda *a: global_mean(*a) * 2, backend="aot_eager", fullgraph=True)
    for count in (4, torch.tensor(4)):
        doubled = compiled(loss, count)
        assert doubled.item() == 3.0
        assert torch.autograd.grad(doubled, loss)[0].item() == 0.5


def test_nothing_is_read_from_a_device() -> None:
    loss = torch.zeros((), device="meta", requires_grad=True)  # which has no values: reading one would fail
    assert global_mean(loss, torch.ones((), device="meta")).is_meta
    assert global_mean(loss, 3).is_meta
