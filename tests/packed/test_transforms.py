"""A batch stays usable after `torch.func` transforms and fake tensors, and copies its indices to a device once."""

from __future__ import annotations

import contextlib

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call, grad, jvp, vmap
from torch.utils._python_dispatch import TorchDispatchMode

import padless
from padless import Packed, ops

# torch's own warning, when forward-mode derivatives are first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
LENGTHS = [3, 0, 5, 1]
USES = {
    "sum": ops.sum,
    "softmax": ops.softmax,
    "cumsum": ops.cumsum,
    "reverse": ops.reverse,
    "head": lambda p: ops.head(p, 2),
    "last": lambda p: ops.last(p, default=0.0),
    "pad": lambda p: p.pad(),
    "left": lambda p: p.pad(side="left"),
    "packed sequence": lambda p: p.to_packed_sequence(),
    "nested": lambda p: p.to_nested(),
    "index": lambda p: p[[1, 0]],
    "lengths": lambda p: p.lengths,
}
each_use = pytest.mark.parametrize("name", USES)


def rows_of(result):
    if isinstance(result, torch.Tensor):
        return result.values() if result.is_nested else result
    return result.data


def batch():
    torch.manual_seed(0)
    return Packed(torch.randn(9, 3), LENGTHS)


def check_uses(packed):
    """Every use gives what it gives for a batch that nothing else has used."""
    lstm = padless.nn.LSTM(3, 4)
    for use in (*USES.values(), lambda p: lstm(p)[0]):
        got, expected = rows_of(use(packed)), rows_of(use(batch()))
        assert type(got) is torch.Tensor
        torch.testing.assert_close(got, expected)


@each_use
@pytest.mark.parametrize("transform", ["grad", "grad of grad", "jvp", "vmap"])
def test_a_transform_leaves_the_batch_as_it_was(name, transform):
    packed, use = batch(), USES[name]

    def work(scale):
        use(packed)  # what the layout finds out here, it keeps
        return scale.sum()

    if transform == "grad":
        grad(work)(torch.ones(2))
    elif transform == "grad of grad":
        grad(grad(work))(torch.tensor(1.0))
    elif transform == "jvp":
        jvp(work, (torch.ones(2),), (torch.ones(2),))
    else:
        vmap(work)(torch.ones(2))
    check_uses(packed)


def test_a_layer_that_was_differentiated_by_torch_func_runs_again():
    packed, lstm = batch(), padless.nn.LSTM(3, 4)
    parameters = {name: weight.detach() for name, weight in lstm.named_parameters()}
    got = grad(lambda p: functional_call(lstm, p, (packed,))[0].data.sum())(parameters)
    lstm(packed)[0].data.sum().backward()
    for name, weight in lstm.named_parameters():
        torch.testing.assert_close(got[name], weight.grad)
    check_uses(packed)


def test_a_batch_made_inside_a_transform_can_be_used_outside_it():
    packed = batch()

    def work(scale):
        halves = ops.head(packed.map(lambda rows: rows * scale), 2)
        halves.to_packed_sequence()
        return halves.data.sum(), halves

    _, halves = grad(work, has_aux=True)(torch.tensor(2.0))
    torch.testing.assert_close(ops.sum(halves), ops.sum(ops.head(batch(), 2)) * 2)
    torch.testing.assert_close(ops.cumsum(halves).data, ops.cumsum(ops.head(batch(), 2)).data * 2)


@each_use
def test_fake_tensors_leave_the_batch_as_it_was(name):
    packed = batch()
    # Some need values, which fake tensors do not have.
    with contextlib.suppress(Exception), FakeTensorMode(allow_non_fake_inputs=True):
        USES[name](packed)
    check_uses(packed)


def test_a_layer_that_failed_on_fake_tensors_runs_again():
    packed, lstm = batch(), padless.nn.LSTM(3, 4)
    with FakeTensorMode(allow_non_fake_inputs=True), contextlib.suppress(Exception):
        lstm(packed)
    check_uses(packed)


@pytest.mark.parametrize("name", ["softmax", "log_softmax", "sum", "mean", "max", "logsumexp"])
def test_indices_of_rows_are_copied_to_a_device_once(name):
    class Copies(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if (
                func is torch.ops.aten._to_copy.default
                and len(args[0]) >= 300
                and args[0].device.type == "cpu"
            ):
                self.count += 1
            return func(*args, **(kwargs or {}))

    packed = Packed(torch.randn(700, 2, device="meta", requires_grad=True), [300, 0, 400])
    with Copies() as copies:
        for _ in range(2):
            rows = rows_of(getattr(ops, name)(packed))
            rows.backward(torch.ones_like(rows))
    assert copies.count <= 2  # the owner of each row, and the block of each row
