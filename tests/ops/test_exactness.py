"""Sums over long sequences are as exact as torch's, and do not depend on the other sequences."""

from __future__ import annotations

import pytest
import torch

from padless import Packed, ops


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("lengths", [[100_000, 3, 0, 129], [300, 128, 64]], ids=str)
def test_long_sequences_are_summed_as_exactly_as_torch_sums(lengths, is_compiled):
    def run(batch, values):
        return (
            ops.sum(batch), ops.mean(batch), ops.logsumexp(batch), ops.softmax(batch).data,
            ops.log_softmax(batch).data, ops.expand(batch, values).data * 0.1,
        )  # fmt: skip

    def results(dtype):
        data = torch.full((sum(lengths),), 0.1).to(dtype)
        values = torch.zeros(len(lengths), dtype=dtype, requires_grad=True)
        function = (
            torch.compile(run, fullgraph=True, backend="aot_eager")
            if is_compiled and dtype == torch.float32
            else run
        )
        *found, spread = function(Packed(data, lengths), values)
        return [*found, *torch.autograd.grad(spread.sum(), values)]

    for single, double in zip(results(torch.float32), results(torch.float64), strict=True):
        torch.testing.assert_close(single.double(), double, rtol=2e-6, atol=0)


def test_running_sums_of_a_long_sequence_are_as_exact_as_torchs():
    rows = torch.full((20_000,), 0.1, requires_grad=True)
    sums = ops.cumsum(Packed(rows, [20_000])).data
    torch.testing.assert_close(sums, rows.cumsum(0), rtol=1e-6, atol=0)
    (grad,) = torch.autograd.grad((sums * 0.1).sum(), rows)
    torch.testing.assert_close(grad, torch.full_like(rows, 0.1).cumsum(0).flip(0), rtol=1e-6, atol=0)


def test_a_sum_does_not_depend_on_the_lengths_of_other_sequences():
    rows = torch.randn(1129)
    alone = [ops.sum(Packed(part, [len(part)])) for part in rows.split([129, 1000])]
    assert torch.equal(ops.sum(Packed(rows, [129, 1000])), torch.cat(alone))
    assert torch.equal(
        ops.sum(Packed(torch.cat([rows, rows.new_ones(20_000)]), [129, 1000, 20_000]))[:2], torch.cat(alone)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_gradient_of_expand_is_summed_in_float32(dtype):
    values = torch.zeros(2, dtype=dtype, requires_grad=True)
    ops.expand(Packed(torch.zeros(1001), [1000, 1]), values).data.sum().backward()
    assert values.grad.tolist() == [1000, 1]
    assert ops.expand(Packed(torch.zeros(2), [2, 0]), values).dtype == dtype
