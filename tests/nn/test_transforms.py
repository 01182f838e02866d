"""Batched gradients, transforms of `torch.func`, forward mode, functional calls and checkpoints on padless layers."""

from __future__ import annotations

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacrev, jvp, vmap
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.checkpoint import checkpoint

import padless

CELLS = ("LSTM", "GRU", "RNN")
OPTIONS = (
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False, "batch_first": True},
)


def twins(cell, **options):
    """A padless layer and torch's with the same weights."""
    ours = getattr(padless.nn, cell)(3, 4, dtype=torch.float64, **options)
    theirs = getattr(torch.nn, cell)(3, 4, dtype=torch.float64, **options)
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


def new(*shape):
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def assert_all_close(got, expected):
    for value, want in zip(got, expected, strict=True):
        torch.testing.assert_close(value, want)


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("cell", CELLS)
def test_batched_gradients_are_torchs(cell, options):
    ours, theirs = twins(cell, **options)
    x = new(5, 2, 3)
    outputs = ours(x)[0], theirs(x)[0]
    cotangents = torch.randn(7, *outputs[0].shape, dtype=torch.float64)
    found = [
        torch.autograd.grad(output, [x, *layer.parameters()], cotangents, is_grads_batched=True)
        for output, layer in zip(outputs, (ours, theirs), strict=True)
    ]
    assert_all_close(*found)


@pytest.mark.parametrize("options", [*OPTIONS, {"proj_size": 2}])
@pytest.mark.parametrize("cell", CELLS)
def test_gradients_of_every_order_pass_gradcheck(cell, options):
    if "proj_size" in options and cell != "LSTM":
        pytest.skip("projections are of LSTM")
    layer = getattr(padless.nn, cell)(3, 4, dtype=torch.float64, **options)
    packed = pack_sequence([torch.randn(length, 3, dtype=torch.float64) for length in (3, 2, 1)])

    def run(data, *weights):
        named = dict(zip((name for name, _ in layer.named_parameters()), weights, strict=True))
        output, states = functional_call(layer, named, (PackedSequence(data, packed.batch_sizes),))
        return output.data, *(states if isinstance(states, tuple) else (states,))

    inputs = (packed.data.clone().requires_grad_(), *layer.parameters())
    assert gradcheck(run, inputs, check_batched_grad=True)
    rest = inputs[2:]
    assert gradgradcheck(lambda data, w_ih: run(data, w_ih, *rest)[0], inputs[:2], check_batched_grad=True)


@pytest.mark.parametrize("cell", CELLS)
def test_jacobians_are_torchs(cell):
    ours, theirs = twins(cell, num_layers=2)
    x = new(3, 2, 3)
    expected = torch.autograd.functional.jacobian(lambda x: theirs(x)[0], x)
    torch.testing.assert_close(
        torch.autograd.functional.jacobian(lambda x: ours(x)[0], x, vectorize=True), expected
    )
    torch.testing.assert_close(jacrev(lambda x: ours(x)[0])(x), expected)


@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch's own use in forward mode
@pytest.mark.parametrize("cell", CELLS)
def test_tangents_are_the_jacobian_s(cell):
    ours, theirs = twins(cell, bidirectional=True)
    x, tangent = new(3, 2, 3).detach(), torch.randn(3, 2, 3, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(lambda x: theirs(x)[0], x)
    expected = (jacobian * tangent).sum((-3, -2, -1))
    torch.testing.assert_close(jvp(lambda x: ours(x)[0], (x,), (tangent,))[1], expected)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        found = torch.autograd.forward_ad.unpack_dual(ours(dual)[0]).tangent
    assert found is not None
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("cell", CELLS)
def test_vmap_maps_the_forward_and_per_sample_gradients(cell):
    ours, theirs = twins(cell)
    samples = new(6, 4, 2, 3).detach()
    got = vmap(lambda x: ours(x)[0])(samples)
    torch.testing.assert_close(got, torch.stack([theirs(x)[0] for x in samples]))
    weights = dict(ours.named_parameters())

    def loss(weights, x):
        return functional_call(ours, weights, (x,))[0].square().sum()

    per_sample = vmap(grad(loss), in_dims=(None, 0))(weights, samples)
    for i, x in enumerate(samples):
        alone = torch.autograd.grad(theirs(x)[0].square().sum(), list(theirs.parameters()))
        assert_all_close([per_sample[name][i] for name in weights], alone)


@pytest.mark.parametrize("use_reentrant", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_checkpoints_have_the_same_gradients(cell, use_reentrant):
    ours, theirs = twins(cell, num_layers=2)
    x = new(4, 2, 3)
    got = torch.autograd.grad(
        checkpoint(lambda x: ours(x)[0], x, use_reentrant=False).square().sum(), [x, *ours.parameters()]
    )
    if use_reentrant:  # which allows .backward() alone
        ours.zero_grad()
        checkpoint(lambda x: ours(x)[0], x, use_reentrant=True).square().sum().backward()
        got = x.grad, *(weight.grad for weight in ours.parameters())
    assert_all_close(got, torch.autograd.grad(theirs(x)[0].square().sum(), [x, *theirs.parameters()]))
