"""The operators that compiled programs call: fake results as torch checks them, and forged arguments."""

from __future__ import annotations

import os

import pytest
import torch

import padless
from padless.backends import _kernels, operators
from padless.layout import operators as index_operators

CELLS = ("LSTM", "GRU", "RNN")
# torch warns of its own code while it compiles.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def layer_arguments(cell, *, placed, projected, hidden):
    width = 3 if projected else hidden
    gates = {"LSTM": 4, "GRU": 3}.get(cell, 1) * hidden

    def new(*shape):
        return torch.randn(shape, requires_grad=True)

    lengths = torch.tensor([2, 0, 4, 3])
    batch_sizes, order = index_operators.grid_schedule(lengths, 5)
    rows = new(20 if placed else 9, 5)
    step, sequence = (torch.arange(5), order * 5) if placed else (None, None)
    return (
        cell, rows, batch_sizes, order, step, sequence, new(4, width), new(4, hidden) if cell == "LSTM" else None,
        new(gates, 5), new(gates, width), new(gates), new(gates), new(width, hidden) if projected else None,
    )  # fmt: skip


# Every cell with everything that it keeps; each of the 12 with one layout and one backend, so that every two
# values of different parameters meet: a check takes a second.
@pytest.mark.parametrize(
    ("cell", "projected", "keep", "exact", "placed", "hidden", "backend"),
    [
        (*cell, *keep, *((False, 16), (True, 6))[(i + j) % 2], ("native", "portable")[(i // 2 + j) % 2])
        for i, cell in enumerate([("LSTM", False), ("LSTM", True), ("GRU", False), ("RNN_RELU", False)])
        for j, keep in enumerate([("gates", False), ("gates", True), ("cells", False)])
    ],
)
def test_opcheck_passes_for_layers(cell, projected, placed, hidden, keep, exact, backend):
    if backend not in padless.backends.available():
        pytest.skip(f"no {backend} backend here")
    arguments = layer_arguments(cell, placed=placed, projected=projected, hidden=hidden)
    with padless.backends.use(backend):
        torch.library.opcheck(operators.layer, (*arguments, True, None, keep, exact))
        plain = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments)
        output, h_n, _, saved = operators.layer(*plain, False, None, keep, exact)
        needs = [a is not None for a in (plain[1], *plain[6:])]
        given = (
            *plain,
            False,
            None,
            output,
            saved,
            torch.ones_like(output),
            torch.ones_like(h_n),
            None,
            needs,
        )
        torch.library.opcheck(torch.ops.padless.layer_backward, given)


@pytest.mark.skipif("native" not in padless.backends.available(), reason="the native kernels were not built")
def test_opcheck_passes_for_bfloat16_rows_without_bfloat16_products():
    arguments = [
        a.detach().bfloat16().requires_grad_() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
        for a in layer_arguments("LSTM", placed=False, projected=False, hidden=6)
    ]
    _kernels.force_isa("baseline")
    try:
        torch.library.opcheck(operators.layer, (*arguments, True, None, "gates", False))
        saved = operators.layer(*arguments, False, None, "gates", False)[3]
    finally:
        _kernels.force_isa(os.environ.get("PADLESS_ISA"))
    assert saved.numel() == 64 + len(arguments[1]) * 16 * (4 + 4 * 2)  # cells in float32, gates in bfloat16


@pytest.mark.parametrize("place", [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12])
@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_forged_arguments_of_an_operator_are_refused(cell, place):
    """A program may come from a file; nothing that does not fit may reach a kernel."""
    arguments = [
        a.detach() if isinstance(a, torch.Tensor) else a
        for a in layer_arguments(cell, placed=True, projected=False, hidden=6)
    ]
    arguments[12] = torch.randn(6, 7) if place == 12 else None
    forged = {
        2: torch.tensor([1, 5, 1, 1, 0]),  # batch sizes that grow
        4: torch.arange(5) + 1000,  # rows outside of memory
        5: arguments[5] - 100,
        12: torch.randn(6, 7),
    }
    whole = torch.randn(4, 6) if arguments[place] is None else arguments[place]
    arguments[place] = forged[place] if place in forged else whole[..., :-1]
    with pytest.raises((RuntimeError, padless.PadlessError)):
        operators.layer(*arguments, False, None, "gates", False)


@pytest.mark.parametrize(
    ("dtype", "output_dtype"),
    [(torch.float32, torch.float16), (torch.float32, torch.float64), (torch.bfloat16, torch.float32)],
)
def test_an_output_dtype_that_the_kernels_do_not_write_is_refused(dtype, output_dtype):
    arguments = [
        a.to(dtype) if isinstance(a, torch.Tensor) and a.is_floating_point() else a
        for a in layer_arguments("LSTM", placed=True, projected=False, hidden=6)
    ]
    with pytest.raises((RuntimeError, padless.PadlessError), match="dtype"):
        operators.layer(*arguments, False, output_dtype, "nothing", False)


@pytest.mark.parametrize("keep", ["nothing", "gates"])
def test_float16_is_computed_in_float32_whatever_output_dtype_says(keep):
    arguments = [
        a.detach().half() if isinstance(a, torch.Tensor) and a.is_floating_point() else a
        for a in layer_arguments("LSTM", placed=True, projected=False, hidden=6)
    ]
    want, *_ = operators.layer(*arguments, False, None, keep, False)
    got, *_ = operators.layer(*arguments, False, torch.float16, keep, False)
    assert got.dtype == torch.float16 and torch.equal(got, want)


@pytest.mark.parametrize("place", [4, 5])
def test_narrow_indices_are_refused(place):
    arguments = list(layer_arguments("LSTM", placed=True, projected=False, hidden=6))
    arguments[place] = arguments[place].int()  # a kernel would read past its end
    with pytest.raises(padless.LayoutError, match="int64"):
        operators.layer(*arguments, False, None, "nothing", False)


@pytest.mark.parametrize("forged", [torch.tensor(4), torch.ones(5), torch.ones(5, 1, dtype=torch.int64)])
def test_batch_sizes_are_checked_before_they_are_used(forged):
    arguments = list(layer_arguments("LSTM", placed=True, projected=False, hidden=6))
    arguments[2] = forged
    with pytest.raises(
        padless.LayoutError, match="batch_sizes must be a one-dimensional int64 tensor on the CPU"
    ):
        operators.layer(*arguments, False, None, "nothing", False)


@pytest.mark.parametrize("place", [4, 5])
def test_steps_without_sequences_are_refused(place):
    arguments = list(layer_arguments("LSTM", placed=True, projected=False, hidden=6))
    arguments[place] = None
    with pytest.raises(padless.LayoutError, match="step and sequence must be given together"):
        operators.layer(*arguments, False, None, "nothing", False)


def test_two_slots_in_one_place_are_refused():
    arguments = list(layer_arguments("LSTM", placed=True, projected=False, hidden=6))
    arguments[5] = arguments[5].clone()
    arguments[5][1] = arguments[5][0]
    with pytest.raises(padless.LayoutError, match=r"sequence names row \d+ for two slots"):
        operators.layer(*arguments, False, None, "nothing", False)


def test_what_a_layer_keeps_has_three_names():
    arguments = layer_arguments("LSTM", placed=True, projected=False, hidden=6)
    with pytest.raises(RuntimeError, match="keep must be one of nothing, cells, gates, got 'all'"):
        operators.layer(*arguments, False, None, "all", False)


def test_forged_gradients_of_an_operator_are_refused():
    arguments = [
        a.detach() if isinstance(a, torch.Tensor) else a
        for a in layer_arguments("LSTM", placed=False, projected=False, hidden=16)
    ]
    output, h_n, c_n, saved = operators.layer(*arguments, False, None, "gates", False)
    needs = [a is not None for a in (arguments[1], *arguments[6:])]
    good = [output, saved, output, h_n, c_n]
    torch.ops.padless.layer_backward(*arguments, False, None, *good, needs)
    for place in range(5):
        bad = [t[:-1] if i == place else t for i, t in enumerate(good)]
        with pytest.raises(RuntimeError):
            torch.ops.padless.layer_backward(*arguments, False, None, *bad, needs)


@pytest.mark.parametrize(("byte", "value"), [(0, 3), (0, 255), (1, 3)])
def test_a_forged_header_of_what_forward_kept_is_refused(byte, value):
    arguments = [
        a.detach() if isinstance(a, torch.Tensor) else a
        for a in layer_arguments("GRU", placed=False, projected=False, hidden=16)
    ]
    output, h_n, _, saved = operators.layer(*arguments, False, None, "gates", False)
    saved[byte] = value
    needs = [a is not None for a in (arguments[1], *arguments[6:])]
    for forged in (saved, saved.view(torch.int8), saved[:10], saved.view(8, -1)):
        with pytest.raises(RuntimeError, match="saved"):
            torch.ops.padless.layer_backward(
                *arguments, False, None, output, forged, output, h_n, None, needs
            )


def test_opcheck_passes_for_index_arithmetic():
    lengths = torch.tensor([2, 0, 4, 3])
    torch.library.opcheck(index_operators.grid_schedule, (lengths, 5))
    torch.library.opcheck(index_operators.rows_schedule, (lengths, 9))
    torch.library.opcheck(index_operators.pack_indices, (lengths, 5, True, False))
    _, batch_sizes, order, _ = index_operators.pack_indices(lengths, 5, True, False)
    torch.library.opcheck(index_operators.pad_indices, (batch_sizes, order, 9, 5, True))
    torch.library.opcheck(torch.ops.padless.checked_lengths, (lengths, 5))
    torch.library.opcheck(torch.ops.padless.batch_sizes, (lengths,))
    for operator in (torch.ops.padless.padded_rows, torch.ops.padless.padded_cells):
        torch.library.opcheck(operator, (lengths, 5, False, True))
