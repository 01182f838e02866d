"""bfloat16 and float16 on the native kernels: products, cells and states in float32, rounded once on the way out."""

from __future__ import annotations

import os

import pytest
import torch

import padless
from padless.backends import _kernels

pytestmark = pytest.mark.skipif(
    "native" not in padless.backends.available(), reason="the native kernels were not built"
)
LENGTHS = [5, 0, 9, 1, 7]
each_dtype = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
each_cell = pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])


@pytest.fixture
def widens():
    """An instruction set that widens bfloat16 to float32; elsewhere its numbers are multiplied as they are."""
    if _kernels.computes("medium"):
        _kernels.force_isa("baseline")
        yield
        _kernels.force_isa(os.environ.get("PADLESS_ISA"))
    else:
        yield


def layers(cell: str, dtype: torch.dtype, **options):
    """A layer, and one that has its rounded parameters in float32."""
    torch.manual_seed(3)
    narrow = getattr(padless.nn, cell)(6, 20, dtype=dtype, **options)
    wide = getattr(padless.nn, cell)(6, 20, dtype=torch.float32, **options)
    wide.load_state_dict(narrow.state_dict())
    return narrow, wide


def batch_of(dtype: torch.dtype) -> padless.Packed:
    torch.manual_seed(4)
    return padless.Packed(torch.randn(sum(LENGTHS), 6).to(dtype), LENGTHS)


def flat(result) -> list[torch.Tensor]:
    output, state = result
    rows = output.data if isinstance(output, padless.Packed) else output
    return [rows, *(state if isinstance(state, tuple) else [state])]


@each_dtype
@each_cell
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"bias": False}])
@pytest.mark.parametrize("trains", [False, True])
def test_a_layer_gives_the_rounded_result_of_float32(cell, dtype, options, trains, widens):
    narrow, wide = layers(cell, dtype, **options)
    batch = batch_of(dtype)
    with torch.set_grad_enabled(trains):
        got, expected = flat(narrow(batch)), flat(wide(batch.to(torch.float32)))
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == dtype and torch.equal(a, b.to(dtype))


def test_a_projected_lstm_gives_the_rounded_result_of_float32(widens):
    narrow, wide = layers("LSTM", torch.bfloat16, proj_size=5)
    batch = batch_of(torch.bfloat16)
    for a, b in zip(flat(narrow(batch)), flat(wide(batch.to(torch.float32))), strict=True):
        assert torch.equal(a, b.to(torch.bfloat16))


@each_dtype
@each_cell
def test_outputs_and_gradients_agree_with_each_sequence_alone_in_float64(cell, dtype):
    narrow, _ = layers(cell, dtype)
    oracle = getattr(torch.nn, cell)(6, 20, dtype=torch.float64)
    oracle.load_state_dict(narrow.state_dict())
    batch = batch_of(dtype)
    rows = batch.data.clone().requires_grad_()
    output, _ = narrow(padless.Packed(rows, LENGTHS))
    output.data.float().pow(2).sum().backward()
    exact = batch.data.double().requires_grad_()
    sequences = [s for s in exact.split(LENGTHS) if len(s)]
    expected = torch.cat([oracle(s)[0] for s in sequences])
    expected.pow(2).sum().backward()
    eps = torch.finfo(dtype).eps
    pairs = [(output.data, expected), (rows.grad, exact.grad)]
    pairs += [(p.grad, q.grad) for p, q in zip(narrow.parameters(), oracle.parameters(), strict=True)]
    for got, want in pairs:
        assert got.dtype == dtype
        # Rounded once: the output and its gradient, which each have a share in every gradient.
        assert float((got.detach().double() - want.detach()).abs().max()) <= 4 * eps * float(
            want.detach().abs().max()
        )


@each_dtype
@each_cell
def test_a_sequence_alone_has_its_bits_in_company(cell, dtype):
    narrow, _ = layers(cell, dtype)
    batch = batch_of(dtype)
    with torch.no_grad():
        together, _ = narrow(batch)
        padded, _ = narrow(batch.pad(batch_first=False), lengths=LENGTHS)
        for i, length in enumerate(LENGTHS):
            if length:
                alone, _ = narrow(batch[i])
                assert torch.equal(alone, together[i])
                assert torch.equal(padded[:length, i], together[i])


@each_cell
def test_recomputed_gradients_stay_within_rounding(cell):
    narrow, _ = layers(cell, torch.bfloat16)
    batch = batch_of(torch.bfloat16)

    def gradients():
        narrow.zero_grad()
        narrow(batch)[0].data.float().pow(2).sum().backward()
        return [p.grad.clone() for p in narrow.parameters()]

    kept = gradients()
    with padless.backends.recompute():
        again = gradients()
    for a, b in zip(kept, again, strict=True):
        assert float((a - b).abs().max()) <= 4 * torch.finfo(torch.bfloat16).eps * float(a.abs().max())


def test_a_write_to_the_weights_is_seen():
    narrow = padless.nn.LSTM(128, 256, dtype=torch.bfloat16)  # large enough for its packed weights to be kept
    x = torch.randn(40, 2, 128).bfloat16()
    with torch.no_grad():
        before, _ = narrow(x)
        narrow.weight_hh_l0.data[0, 0] += 1
        assert not torch.equal(narrow(x)[0], before)


@each_cell
def test_bfloat16_saves_at_most_three_fifths_of_what_float32_saves_for_backward(cell, widens):
    narrow, wide = (
        getattr(padless.nn, cell)(32, 32, dtype=dtype) for dtype in (torch.bfloat16, torch.float32)
    )
    rows = torch.randn(400, 32)

    def saved_bytes(layer, batch) -> int:
        found = {}

        def note(tensor):
            found[tensor.data_ptr()] = tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            layer(batch)
        return sum(found.values())

    low = saved_bytes(narrow, padless.Packed(rows.bfloat16(), [250, 150]))
    assert 0 < low <= 0.6 * saved_bytes(wide, padless.Packed(rows, [250, 150]))
