"""Training steps of few rows: bits, batched gradients, threads, and saved tensors that were moved or changed."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

import padless
from padless.backends import _kernels
from padless.backends._precision import precision_of

from .short_kit import counted, each_cell, flat, without_short_way

each_dtype = pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])


def layer_of(cell, input_size=5, hidden=7, **options):
    torch.manual_seed(3)
    return getattr(padless.nn, cell)(input_size, hidden, **options)


def leaves_of(layer, batch, dtype=torch.float32):
    """Rows `(1, B, I)` and initial states `(L, B, H)`."""
    shape = (layer.num_layers, batch, layer.hidden_size)
    states = [torch.randn(shape, dtype=dtype) for _ in range(2 if layer.mode == "LSTM" else 1)]
    return [t.requires_grad_() for t in (torch.randn(1, batch, layer.input_size, dtype=dtype), *states)]


def values_of(layer, leaves):
    x, *states = leaves
    return flat(layer(x, tuple(states) if layer.mode == "LSTM" else states[0]))


def gradients(layer, leaves, grads):
    """Output, final states and every gradient; `grads` are those of the values, None where there is none."""
    values = values_of(layer, leaves)
    pairs = [(value, grad) for value, grad in zip(values, grads, strict=True) if grad is not None]
    outputs, given = zip(*pairs, strict=True)
    return [*values, *torch.autograd.grad(outputs, [*leaves, *layer.parameters()], given, allow_unused=True)]


@each_cell
@each_dtype
@pytest.mark.parametrize(("batch", "sizes"), [(1, (5, 7)), (3, (16, 32)), (13, (600, 3)), (32, (3, 70))])
def test_every_gradient_has_the_bits_of_packed_weights(cell, dtype, batch, sizes, each_isa, monkeypatch):
    layer, taken = layer_of(cell, *sizes, dtype=dtype, num_layers=2), counted(monkeypatch)
    leaves = leaves_of(layer, batch, dtype)
    grads = [torch.randn_like(value) for value in values_of(layer, leaves)]
    for isa in each_isa:
        _kernels.force_isa(isa)
        if precision_of(dtype) == "medium":
            continue  # the general way multiplies bfloat16 numbers there
        short = gradients(layer, leaves, grads)
        with monkeypatch.context() as patch:
            without_short_way(patch)
            general = gradients(layer, leaves, grads)
        for at, (got, want) in enumerate(zip(short, general, strict=True)):
            assert got.dtype == dtype and torch.equal(got, want), (isa, at)
    assert set(taken) == {True}


@each_cell
def test_values_without_a_gradient(cell, monkeypatch):
    layer = layer_of(cell, dtype=torch.float64)
    leaves = leaves_of(layer, 3, torch.float64)
    values = values_of(layer, leaves)
    for only in range(len(values)):
        grads = [torch.randn_like(value) if at == only else None for at, value in enumerate(values)]
        short = gradients(layer, leaves, grads)
        with monkeypatch.context() as patch:
            without_short_way(patch)
            general = gradients(layer, leaves, grads)
        for got, want in zip(short, general, strict=True):
            assert torch.equal(got, want)


@each_cell
def test_only_what_needs_a_gradient_gets_one(cell):
    layer = layer_of(cell)
    for p in layer.parameters():
        p.requires_grad_(False)
    layer.weight_hh_l0.requires_grad_(True)
    output, _ = layer(torch.randn(1, 2, 5))
    output.sum().backward()  # a gradient of stride 0
    assert [name for name, p in layer.named_parameters() if p.grad is not None] == ["weight_hh_l0"]


@each_cell
def test_batched_gradients_are_those_one_by_one(cell):
    layer = layer_of(cell, dtype=torch.float64)
    leaves = leaves_of(layer, 2, torch.float64)
    output = values_of(layer, leaves)[0]
    wanted, many = [*leaves, *layer.parameters()], torch.randn(3, *output.shape, dtype=torch.float64)
    batched = torch.autograd.grad(
        output, wanted, many, is_grads_batched=True, retain_graph=True, allow_unused=True
    )
    for at, grad in enumerate(many):
        for got, want in zip(
            batched,
            torch.autograd.grad(output, wanted, grad, retain_graph=True, allow_unused=True),
            strict=True,
        ):
            assert want is None if got is None else torch.allclose(got[at], want)


@each_cell
@pytest.mark.parametrize("batch", [1, 16])
def test_two_threads_have_the_bits_of_one(cell, batch):
    layer = layer_of(cell, 300, 260)  # enough multiplications for a second thread at 16 rows
    leaves = leaves_of(layer, batch)
    grads = [torch.randn_like(value) for value in values_of(layer, leaves)]
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(gradients(layer, leaves, grads))
    finally:
        torch.set_num_threads(threads)
    for one, two in zip(*results, strict=True):
        assert torch.equal(one, two)


@each_cell
def test_calls_in_several_threads_train_side_by_side(cell):
    layer = layer_of(cell)
    leaves = [leaves_of(layer, 1 + at % 3) for at in range(8)]
    grads = [[torch.randn_like(value) for value in values_of(layer, each)] for each in leaves]
    wanted = [gradients(layer, each, grad) for each, grad in zip(leaves, grads, strict=True)]

    def work(at):
        return all(
            torch.equal(got, want)
            for _ in range(50)
            for got, want in zip(gradients(layer, leaves[at], grads[at]), wanted[at], strict=True)
        )

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


@each_cell
def test_saved_tensors_that_moved_are_read_where_they_are(cell):
    layer = layer_of(cell)
    leaves = leaves_of(layer, 2)
    grads = [torch.randn_like(value) for value in values_of(layer, leaves)]
    wanted = gradients(layer, leaves, grads)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        moved = gradients(layer, leaves, grads)
    with torch.autograd.graph.saved_tensors_hooks(
        lambda t: t.double(), lambda t: t.float().repeat_interleave(2, -1)[..., ::2]
    ):
        strided = gradients(layer, leaves, grads)
    for got, other, want in zip(moved, strided, wanted, strict=True):
        assert torch.equal(got, want)
        torch.testing.assert_close(other, want)


@each_cell
def test_weights_whose_memory_shrank_never_reach_the_kernel(cell):
    layer = layer_of(cell)
    output, _ = layer(torch.randn(1, 2, 5))
    layer.weight_hh_l0.data = layer.weight_hh_l0.data[:, :1].clone()
    with pytest.raises(RuntimeError):
        output.sum().backward()


@each_cell
def test_weights_changed_in_place_before_backward_are_reported(cell):
    layer = layer_of(cell)
    output, _ = layer(torch.randn(1, 2, 5))
    with torch.no_grad():
        layer.weight_ih_l0.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()
