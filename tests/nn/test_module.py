"""As modules the layers are torch's: parameters, state_dict, pickle, repr, hooks, moves."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import padless

from .layer_kit import CELLS, KINDS, Problem, answer, assert_same, by_hand, twins

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
each_cell = pytest.mark.parametrize("name", CELLS)
STACK: dict[str, Any] = {"num_layers": 2, "bidirectional": True}


def pair(name: str, **options: Any) -> tuple[Any, Any]:
    cell, own = CELLS[name]
    return twins(cell, 3, 4, **own, **options)


def data() -> Any:
    return by_hand([torch.randn(n, 3, generator=torch.Generator().manual_seed(n)) for n in (4, 1, 3)])


@each_cell
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_initial_values_of_a_seed_are_torchs_bit_for_bit(name: str, bias: bool, bidirectional: bool) -> None:
    ours, theirs = pair(name, num_layers=3, bias=bias, bidirectional=bidirectional)
    a, b = ours.state_dict(), theirs.state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert [n for n, _ in ours.named_parameters()] == [n for n, _ in theirs.named_parameters()]
    assert ours.all_weights[0][0] is ours.weight_ih_l0


@each_cell
def test_reset_parameters_draws_what_torchs_draws(name: str) -> None:
    layers = pair(name, **STACK)
    for layer in layers:
        torch.manual_seed(9)
        layer.reset_parameters()
    assert torch.equal(layers[0].weight_hh_l1_reverse, layers[1].weight_hh_l1_reverse)


@each_cell
def test_names_and_ancestry_are_torchs(name: str) -> None:
    ours, theirs = pair(name, bias=False, batch_first=True, **STACK)
    assert repr(ours) == repr(theirs)
    assert ours._get_name() == theirs._get_name()
    assert type(ours).__name__ == type(theirs).__name__
    assert isinstance(ours, type(theirs))
    assert issubclass(type(ours), nn.RNNBase)
    for attribute in ("mode", "input_size", "hidden_size", "num_layers", "proj_size", "batch_first"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)


@each_cell
@pytest.mark.parametrize("direction", ["ours to theirs", "theirs to ours"])
def test_state_dicts_load_both_ways(name: str, direction: str) -> None:
    source, target = pair(name, **STACK)
    if direction == "theirs to ours":
        source, target = target, source
    target.reset_parameters()
    saved = io.BytesIO()
    torch.save(source.state_dict(), saved)
    saved.seek(0)
    result = target.load_state_dict(torch.load(saved, weights_only=True), strict=True)
    assert result.missing_keys == result.unexpected_keys == []
    torch.testing.assert_close(source(data())[0].data, target(data())[0].data)


@each_cell
def test_copies_compute_the_same_and_share_nothing(name: str) -> None:
    ours, _ = pair(name, **STACK)
    saved = io.BytesIO()
    torch.save(ours, saved)
    saved.seek(0)
    copies = {
        "pickle": pickle.loads(pickle.dumps(ours)),
        "copy": copy.deepcopy(ours),
        "save": torch.load(saved, weights_only=False),
    }
    expected = ours(data())[0].data.clone()
    for other in copies.values():
        assert type(other) is type(ours)
        assert torch.equal(other(data())[0].data, expected)
        with torch.no_grad():
            for p in other.parameters():
                p.zero_()
    assert torch.equal(ours(data())[0].data, expected)


def test_a_layer_pickled_after_use_is_no_larger() -> None:
    """Nothing of a batch stays in the layer."""
    ours, _ = pair("lstm", **STACK)
    before = len(pickle.dumps(ours))
    ours(data())
    ours(torch.randn(50, 8, 3), lengths=[50] * 8)
    assert len(pickle.dumps(ours)) == before


@each_cell
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16])
def test_a_layer_moves_between_dtypes(name: str, dtype: torch.dtype) -> None:
    cell, own = CELLS[name]
    problem = Problem(cell, (4, 1, 3), {**own, **STACK}, dtype=dtype)
    moved, _ = twins(cell, 5, 4, **own, **STACK)
    _, theirs = twins(cell, 5, 4, **own, **STACK)
    actual = answer(moved.to(dtype), problem, KINDS["packed_sequence"])
    assert_same(actual, answer(theirs.to(dtype), problem, KINDS["packed_sequence"]), problem)


def test_half_double_float_and_type_move_the_weights_that_compute() -> None:
    ours, _ = pair("lstm")
    x = torch.randn(5, 2, 3)
    for move, dtype in (
        (ours.half, torch.float16),
        (ours.double, torch.float64),
        (lambda: ours.type(torch.bfloat16), torch.bfloat16),
        (ours.float, torch.float32),
    ):
        assert move()(x.to(dtype))[0].dtype == dtype


def test_to_empty_and_load_builds_a_layer_from_meta() -> None:
    ours, theirs = pair("lstm", **STACK)
    with torch.device("meta"):
        made = padless.nn.LSTM(3, 4, **STACK)
    made.to_empty(device="cpu").load_state_dict(theirs.state_dict())
    assert torch.equal(made(data())[0].data, ours(data())[0].data)
    with torch.device("meta"):
        assigned = padless.nn.LSTM(3, 4, **STACK)
    assigned.load_state_dict(theirs.state_dict(), assign=True)
    assert torch.equal(assigned(data())[0].data, ours(data())[0].data)


def test_shared_memory_is_computed_on() -> None:
    ours, _ = pair("gru")
    expected = ours(data())[0].data.detach()
    ours.share_memory()
    assert all(p.is_shared() for p in ours.parameters())
    assert torch.equal(ours(data())[0].data, expected)


@each_cell
def test_hooks_are_called_with_what_torchs_give_them(name: str) -> None:
    found = []
    for layer in pair(name):
        calls: list[Any] = []
        layer.register_forward_pre_hook(lambda m, args, c=calls: c.append(("before", len(args))))
        layer.register_forward_hook(lambda m, args, out, c=calls: c.append(("after", type(out[1]))))
        layer.register_full_backward_pre_hook(
            lambda m, grads, c=calls: c.append(("pre backward", [_shape(g) for g in grads]))
        )
        layer.register_full_backward_hook(
            lambda m, gi, go, c=calls: c.append(("backward", [_shape(g) for g in (*gi, *go)]))
        )
        x = torch.randn(5, 2, 3, requires_grad=True)
        layer(x)[0].sum().backward()
        found.append(calls)
    assert found[0] == found[1]
    assert len(found[0]) == 4


def _shape(gradient: Any) -> Any:
    return tuple(gradient.shape) if isinstance(gradient, Tensor) else type(gradient)


def test_hooks_may_replace_input_output_and_keywords() -> None:
    ours, _ = pair("lstm")
    x = torch.randn(5, 2, 3)
    expected, _ = ours(x * 2, lengths=[5, 3])

    def double(module: Any, args: Any, kwargs: Any) -> Any:
        return (args[0] * 2,), {"lengths": [5, 3]}

    handle = ours.register_forward_pre_hook(double, with_kwargs=True)
    assert torch.equal(ours(x)[0], expected)
    handle.remove()
    ours.register_forward_hook(lambda m, args, out: out[0])
    assert ours(x).shape == (5, 2, 4)


def test_gradient_hooks_on_parameters_are_called() -> None:
    ours, _ = pair("lstm")
    seen: list[Tensor] = []
    ours.weight_hh_l0.register_hook(lambda g: seen.append(g) or g * 3)
    ours(data())[0].data.sum().backward()
    torch.testing.assert_close(ours.weight_hh_l0.grad, seen[0] * 3)


@each_cell
def test_the_module_takes_new_parameters_as_torchs_does(name: str) -> None:
    """`module.weight = nn.Parameter(...)`, and weights changed in place or through `.data`."""
    ours, theirs = pair(name, **STACK)
    new = torch.randn_like(ours.weight_hh_l1)
    for layer in (ours, theirs):
        layer.weight_hh_l1 = nn.Parameter(new.clone())
        layer.weight_ih_l0.data = layer.weight_ih_l0.data * 0.5
        with torch.no_grad():
            layer.weight_hh_l0.mul_(2)
    a, b = ours(data()), theirs(data())
    torch.testing.assert_close(a[0].data, b[0].data)
    a[0].data.sum().backward()
    assert ours.weight_hh_l1.grad is not None
