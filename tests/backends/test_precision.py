"""Layers whose products are of bfloat16 numbers, by emulation: bfloat16 rows, autocast, torch's precision switch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

import padless
from padless.backends import _kernels
from padless.backends._precision import precision_of

pytestmark = pytest.mark.skipif(
    "native" not in padless.backends.available(), reason="the native kernels were not built"
)
LENGTHS = [5, 0, 9, 1, 7]
CELLS = ["LSTM", "GRU", "RNN"]
OPTIONS = [{}, {"bidirectional": True, "num_layers": 2}]
each_cell = pytest.mark.parametrize("cell", CELLS)
each_options = pytest.mark.parametrize("options", OPTIONS, ids=["plain", "deep"])


@pytest.fixture(params=["amx_emulated", "avx512_bf16_emulated"], autouse=True)
def isa(request):
    _kernels.force_isa(request.param)
    yield request.param
    torch.set_float32_matmul_precision("highest")
    _kernels.force_isa(os.environ.get("PADLESS_ISA"))


def new_layer(cell: str, **options):
    torch.manual_seed(3)
    return getattr(padless.nn, cell)(6, 20, **options)


def new_batch(dtype=torch.float32) -> padless.Packed:
    torch.manual_seed(4)
    return padless.Packed(torch.randn(sum(LENGTHS), 6).bfloat16().to(dtype), LENGTHS)


def all_of(layer, batch) -> list[torch.Tensor]:
    """Output, final states, and gradients of the rows and of every parameter."""
    rows = batch.data.detach().clone().requires_grad_()
    layer.zero_grad()
    output, state = layer(padless.Packed(rows, batch.lengths))
    states = state if isinstance(state, tuple) else (state,)
    loss = output.data.double().square().sum() + sum(s.double().square().sum() for s in states)
    loss.backward()
    return [output.data, *states, rows.grad, *(p.grad for p in layer.parameters())]


def alone_in_float64(layer, cell, options, batch) -> list[torch.Tensor]:
    """The same by torch, each sequence alone, in float64."""
    exact = getattr(torch.nn, cell)(6, 20, dtype=torch.float64, **options)
    exact.load_state_dict(layer.state_dict())
    rows = batch.data.detach().double().requires_grad_()
    outputs, finals = [], []
    for part in rows.split(LENGTHS):
        if len(part) == 0:
            depth = exact.num_layers * (2 if exact.bidirectional else 1)
            finals.append([torch.zeros(depth, 20, dtype=torch.float64)] * (2 if cell == "LSTM" else 1))
            continue
        output, state = exact(part)
        outputs.append(output)
        finals.append(list(state) if isinstance(state, tuple) else [state])
    states = [torch.stack(parts, 1) for parts in zip(*finals, strict=True)]
    loss = sum(o.square().sum() for o in outputs) + sum(s.square().sum() for s in states)
    loss.backward()
    return [torch.cat(outputs), *states, rows.grad, *(p.grad for p in exact.parameters())]


def assert_near(got, expected, tolerance):
    for a, b in zip(got, expected, strict=True):
        scale = max(1.0, b.abs().max().item())
        assert (a.double() - b).abs().max().item() <= tolerance * scale


@each_cell
@each_options
@pytest.mark.parametrize(("switch", "tolerance"), [("high", 2e-4), ("medium", 6e-2)])
def test_float32_layers_follow_torchs_switch(cell, options, switch, tolerance):
    layer, batch = new_layer(cell, **options), new_batch()
    highest = all_of(layer, batch)
    torch.set_float32_matmul_precision(switch)
    got = all_of(layer, batch)
    assert all(a.dtype == torch.float32 for a in got)
    assert torch.equal(got[0], highest[0]) != _kernels.computes(switch)
    assert_near(got, alone_in_float64(layer, cell, options, batch), tolerance)
    torch.set_float32_matmul_precision("highest")
    for a, b in zip(all_of(layer, batch), highest, strict=True):
        assert torch.equal(a, b)


@each_cell
@each_options
def test_bfloat16_layers_keep_their_dtype_and_are_near_float64(cell, options):
    layer, batch = new_layer(cell, **options).bfloat16(), new_batch(torch.bfloat16)
    got = all_of(layer, batch)
    assert all(a.dtype == torch.bfloat16 for a in got)
    assert_near(got, alone_in_float64(layer, cell, options, batch), 8e-2)
    with torch.no_grad():
        output, state = layer(batch)
    assert torch.equal(output.data, got[0].detach())
    assert torch.equal(state[0] if isinstance(state, tuple) else state, got[1].detach())


@each_cell
@each_options
def test_autocast_multiplies_bfloat16_and_gives_gradients_in_the_parameters_dtype(cell, options):
    layer, batch = new_layer(cell, **options), new_batch()
    expected = alone_in_float64(layer, cell, options, batch)
    with torch.autocast("cpu", torch.bfloat16):
        got = all_of(layer, batch)
    gradients = got[3 if cell == "LSTM" else 2 :]
    assert all(g.dtype == torch.float32 for g in gradients)
    assert_near(got, expected, 6e-2)
    with torch.autocast("cpu", torch.bfloat16, enabled=False):
        assert not torch.equal(got[0].float(), layer(batch)[0].data)


@each_cell
@each_options
def test_autocast_reads_rows_of_either_dtype_and_rounds_no_float32_output(cell, options):
    layer, rows_at = new_layer(cell, **options), 3 if cell == "LSTM" else 2
    with torch.autocast("cpu", torch.bfloat16):
        wide, low = (all_of(layer, new_batch(dtype)) for dtype in (torch.float32, torch.bfloat16))
    assert wide[rows_at].dtype == torch.float32 and low[rows_at].dtype == torch.bfloat16
    # Of two directions the sum of both gradients is rounded, not each.
    torch.testing.assert_close(wide.pop(rows_at), low.pop(rows_at).float(), rtol=0.02, atol=0.02)
    for a, b in zip(wide, low, strict=True):
        assert a.dtype == b.dtype and torch.equal(a, b)
    output = wide[0].detach()
    assert torch.equal(output, output.bfloat16().to(output.dtype)) == (
        cell == "RNN"
    )  # torch's RNN gives bfloat16


def test_autocast_has_torchs_dtypes_on_padded_and_packed_input():
    ours, theirs = padless.nn.GRU(4, 8), torch.nn.GRU(4, 8)
    x = torch.randn(5, 3, 4)
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 4, 1]))
    with torch.autocast("cpu", torch.bfloat16):
        for given in (x, packed):
            (output, state), (their_output, their_state) = ours(given), theirs(given)
            assert output[0].dtype == their_output[0].dtype  # of the data, or of the first step
            assert state.dtype == their_state.dtype


def test_a_gradient_of_a_gradient_under_autocast_is_that_of_composed_operations():
    layer = new_layer("GRU")
    rows = torch.randn(3, 2, 6, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(rows)[0]
    (first,) = torch.autograd.grad(output.float().square().sum(), rows, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), rows)
    exact = torch.nn.GRU(6, 20, dtype=torch.float64)
    exact.load_state_dict(layer.state_dict())
    wide = rows.detach().double().requires_grad_()
    (one,) = torch.autograd.grad(exact(wide)[0].square().sum(), wide, create_graph=True)
    (two,) = torch.autograd.grad(one.square().sum(), wide)
    assert_near([first.detach(), second], [one.detach(), two], 5e-2)


def test_backward_follows_the_precision_of_its_forward():
    layer, batch = new_layer("LSTM"), new_batch()

    def gradients(during_backward: str) -> list[torch.Tensor]:
        layer.zero_grad()
        torch.set_float32_matmul_precision("high")
        loss = layer(batch)[0].data.square().sum()
        torch.set_float32_matmul_precision(during_backward)
        loss.backward()
        return [p.grad.clone() for p in layer.parameters()]

    for a, b in zip(gradients("high"), gradients("medium"), strict=True):
        assert torch.equal(a, b)


def test_recomputed_gates_have_the_bits_of_the_forward_pass():
    layer, batch = new_layer("LSTM").bfloat16(), new_batch(torch.bfloat16)
    kept = all_of(layer, batch)
    with padless.backends.recompute():
        again = all_of(layer, batch)
    for a, b in zip(kept, again, strict=True):
        assert_near([a], [b.double()], 2e-2)  # h before a step is read from the rounded output


def test_a_sequence_has_its_bits_alone_in_company_and_step_by_step():
    torch.set_float32_matmul_precision("high")
    layer, batch = new_layer("LSTM"), new_batch()
    with torch.no_grad():
        output, _ = layer(batch)
        for i, rows in enumerate(batch.unpack()):
            if len(rows) == 0:
                continue
            alone, _ = layer(rows)
            assert torch.equal(alone, output.unpack()[i])
            state, steps = None, []
            for row in rows:
                step, state = layer(row.view(1, 1, -1), state)
                steps.append(step.view(1, -1))
            assert torch.equal(torch.cat(steps), alone)


def test_weights_kept_for_one_precision_are_not_taken_for_another():
    layer = padless.nn.LSTM(200, 200)  # large enough for its packed weights to be kept
    x = torch.randn(2, 1, 200)
    results = []
    with torch.no_grad():
        for switch in ("highest", "medium", "highest", "medium"):
            torch.set_float32_matmul_precision(switch)
            results.append(layer(x)[0])
    assert torch.equal(results[0], results[2]) and torch.equal(results[1], results[3])
    assert not torch.equal(results[0], results[1])


@pytest.mark.skipif(
    not hasattr(torch.backends.mkldnn, "rnn"), reason="this torch has no precision of mkldnn's RNN"
)
def test_the_precision_of_mkldnns_rnn_overrules_the_general_switch():
    own = torch.backends.mkldnn.rnn
    try:
        for name, expected in (("ieee", "highest"), ("tf32", "high"), ("bf16", "medium")):
            own.fp32_precision = name
            assert precision_of(torch.float32) == (expected if _kernels.computes(expected) else "highest")
    finally:
        own.fp32_precision = "none"
    assert precision_of(torch.float32) == "highest"


def test_without_bfloat16_products_the_switch_changes_no_bit():
    layer, batch = new_layer("LSTM"), new_batch()
    _kernels.force_isa("baseline")
    expected = all_of(layer, batch)
    torch.set_float32_matmul_precision("medium")
    for a, b in zip(all_of(layer, batch), expected, strict=True):
        assert torch.equal(a, b)


def test_float64_and_float16_do_not_follow_the_switch():
    torch.set_float32_matmul_precision("medium")
    assert precision_of(torch.float64) == precision_of(torch.float16) == "highest"


def test_doctor_says_how_products_are_computed():
    command = [sys.executable, "-m", "padless", "doctor", "--json"]
    for isa, expected in (
        ("amx_emulated", "by amx_emulated"),
        ("baseline", "in float32: baseline has no products of bfloat16 numbers"),
    ):
        run = subprocess.run(
            command, env={**os.environ, "PADLESS_ISA": isa}, capture_output=True, text=True, check=True
        )
        facts = json.loads(run.stdout)
        assert facts["bfloat16_products"] == expected
        assert facts["float32_products"] == "precision highest"
