"""Calls of one or a few steps in bfloat16 and float16: exact up to one rounding, and independent of each other."""

from __future__ import annotations

import os

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import padless
from padless.backends import _kernels

from ..oracle import run_layers
from .short_kit import (
    NARROW,
    assert_same_bits,
    counted,
    each_cell,
    fed_step_by_step,
    flat,
    layer_of,
    states_of,
)

each_dtype = pytest.mark.parametrize("dtype", NARROW)


@pytest.fixture(params=[True, False], ids=["widened", "best"])
def products(request):
    """Products of numbers widened to float32, and those of the machine's best instruction set."""
    if request.param:
        _kernels.force_isa("baseline")
    yield
    _kernels.force_isa(os.environ.get("PADLESS_ISA"))


@each_cell
@each_dtype
@pytest.mark.parametrize("kind", ["padded", "batch first", "PackedSequence", "Packed"])
@pytest.mark.parametrize("steps", [1, 4])
def test_narrow_dtypes_agree_with_each_sequence_alone_in_float64(
    cell, dtype, kind, steps, products, monkeypatch
):
    layer, taken = layer_of(cell, dtype=dtype, batch_first=kind == "batch first"), counted(monkeypatch)
    rows, hx = torch.randn(3, steps, 5, dtype=dtype), states_of(layer, 3, dtype)
    with torch.no_grad():
        if kind == "PackedSequence":
            output, last = layer(pack_sequence(list(rows)), hx)
            output = output.data.view(steps, 3, 7).transpose(0, 1)
        elif kind == "Packed":
            output, last = layer(padless.Packed(rows.flatten(0, 1), [steps] * 3), hx)
            output = output.data.view(3, steps, 7)
        else:
            output, last = layer(rows if kind == "batch first" else rows.transpose(0, 1), hx)
            output = output if kind == "batch first" else output.transpose(0, 1)
    assert taken == [True]
    weights = {name: p.detach().double() for name, p in layer.named_parameters()}
    states = hx if cell == "LSTM" else (hx,)
    expected, expected_last = run_layers(
        cell, weights, list(rows.double()), tuple(s.double() for s in states)
    )
    results = [output, *(last if cell == "LSTM" else (last,))]
    for got, want in zip(results, [torch.stack(expected), *expected_last], strict=True):
        assert got.dtype == dtype
        # The result is rounded once and, where bfloat16 numbers are multiplied, h before each product.
        assert float((got.double() - want).abs().max()) <= 4 * torch.finfo(dtype).eps * max(
            1.0, float(want.abs().max())
        )


@each_cell
@each_dtype
def test_narrow_sequences_have_their_bits_in_company_and_step_by_step_stay_within_rounding(cell, dtype):
    layer, x = layer_of(cell, dtype=dtype), torch.randn(30, 4, 5, dtype=dtype)
    with torch.no_grad():
        whole, last = layer(x)
        stepped, state = fed_step_by_step(layer, x)
        for at in range(4):
            alone, own = layer(x[:, at : at + 1])
            assert_same_bits(flat((alone, own)), [each[:, at : at + 1] for each in flat((whole, last))])
    eps = torch.finfo(dtype).eps  # each step rounds its state, and the next steps forget a part of that
    for got, expected in zip(flat((stepped, state)), flat((whole, last)), strict=True):
        assert float((got - expected).abs().max()) <= 8 * eps * max(1.0, float(expected.abs().max()))


@each_cell
@each_dtype
def test_narrow_results_do_not_depend_on_the_mode_of_earlier_calls(cell, dtype, products):
    layer, x = layer_of(cell, dtype=dtype).requires_grad_(False), torch.randn(1, 2, 5, dtype=dtype)
    results = []
    for mode in (torch.inference_mode, torch.no_grad, torch.enable_grad, torch.inference_mode):
        with mode():
            first = layer(x)  # of this mode, and the state of the next call
            second = layer(x, first[1])
            assert all(r.is_inference() == (mode is torch.inference_mode) for r in flat(second))
            results.append([*flat(first), *flat(second)])
    with torch.inference_mode():
        state = layer(x)[1]
    results.append([*flat(layer(x)), *flat(layer(x, state))])
    for each in results[1:]:
        assert_same_bits(each, results[0])
        assert not any(value.requires_grad for value in each)


@each_cell
@each_dtype
def test_narrow_results_belong_to_the_caller(cell, dtype, each_isa):
    for isa in each_isa:
        _kernels.force_isa(isa)
        layer, x = layer_of(cell, dtype=dtype), torch.randn(1, 2, 5, dtype=dtype)
        with torch.no_grad():
            results = flat(layer(x))
            kept = [each.clone() for each in results]
            layer(torch.randn(1, 2, 5, dtype=dtype))
        memory = {each.untyped_storage().data_ptr() for each in results}
        assert len(memory) == len(results)
        assert_same_bits(results, kept)
        assert all(each.untyped_storage().nbytes() == each.nbytes for each in results)


@each_cell
@each_dtype
def test_autocast_and_several_recorded_steps_take_the_general_way(cell, dtype, monkeypatch):
    layer, taken = layer_of(cell, dtype=dtype), counted(monkeypatch)
    x = torch.randn(1, 2, 5, dtype=dtype)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(x)
    layer(x.expand(3, 2, 5))[0].sum().backward()
    assert taken == [False, False]
    assert all(p.grad.dtype == dtype for p in layer.parameters())


@each_cell
@each_dtype
def test_hooks_see_narrow_small_calls(cell, dtype, monkeypatch):
    layer, taken = layer_of(cell, dtype=dtype), counted(monkeypatch)
    x, seen = torch.randn(1, 2, 5, dtype=dtype), []
    layer.register_forward_pre_hook(lambda module, given: seen.append(given[0]))
    layer.register_forward_hook(lambda module, given, result: seen.append(result[0]))
    with torch.no_grad():
        output, _ = layer(x)
    assert taken == [True] and seen[0] is x and seen[1] is output


@each_cell
@each_dtype
@pytest.mark.parametrize(("layers", "batch"), [(1, 1), (1, 4), (2, 4)])
def test_one_step_of_training_in_narrow_dtypes_agrees_with_float64(
    cell, dtype, layers, batch, products, monkeypatch
):
    layer, taken = layer_of(cell, dtype=dtype, num_layers=layers), counted(monkeypatch)
    exact = getattr(torch.nn, cell)(5, 7, num_layers=layers, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    x, hx = torch.randn(1, batch, 5, dtype=dtype), states_of(layer, batch, dtype)

    def gradients(module, to):
        leaves = [t.to(to).requires_grad_() for t in (x, *(hx if cell == "LSTM" else (hx,)))]
        values = flat(module(leaves[0], tuple(leaves[1:]) if cell == "LSTM" else leaves[1]))
        loss = sum((at * value.double()).sum() for at, value in enumerate(values, 1))
        return [*values, *torch.autograd.grad(loss, [*leaves, *module.parameters()])]

    for got, want in zip(gradients(layer, dtype), gradients(exact, torch.float64), strict=True):
        assert got.dtype == dtype
        error = float((got.detach().double() - want.detach()).abs().max())
        # Torch's cells round every gate in bfloat16, and so do their gradients.
        assert error <= 8 * torch.finfo(dtype).eps * max(1.0, float(want.detach().abs().max()))
    assert taken == [True]


@each_cell
@pytest.mark.parametrize(("dtype", "batch"), [(torch.bfloat16, 129), (torch.float16, 1)])
def test_steps_that_the_kernels_do_not_take_train_in_float32(cell, dtype, batch, each_isa):
    _kernels.force_isa("baseline")  # `each_isa` forces the other again
    layer, x = getattr(padless.nn, cell)(5, 7, dtype=dtype), torch.randn(1, batch, 5, dtype=dtype)
    output, _ = layer(x)
    h = torch.zeros(batch, 7)
    cells = {"LSTM": torch.lstm_cell, "GRU": torch.gru_cell, "RNN": torch.rnn_tanh_cell}
    state = (h, h) if cell == "LSTM" else h
    want = cells[cell](x[0].float(), state, *(p.float() for p in layer.parameters()))
    assert torch.equal(output[0], (want[0] if cell == "LSTM" else want).to(dtype))
