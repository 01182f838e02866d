"""Calls of one or a few steps: the short way computes the bits of the general one, and nothing fools it."""

from __future__ import annotations

import copy
import gc
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import padless
from padless.backends import _kernels, prepared
from padless.nn import _steps

from .short_kit import (
    NARROW,
    assert_same_bits,
    both_ways,
    counted,
    each_cell,
    fed_step_by_step,
    flat,
    layer_of,
    states_of,
    without_short_way,
)

DTYPES = [torch.float32, torch.float64, *NARROW]


@each_cell
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"num_layers": 3}, {"batch_first": True}])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("steps", "batch"), [(1, 1), (1, 6), (4, 3), (5, 1)])
@pytest.mark.parametrize("with_state", [True, False])
def test_the_short_way_has_the_bits_of_the_general_one(
    cell, options, dtype, steps, batch, with_state, monkeypatch
):
    layer = layer_of(cell, dtype=dtype, **options)
    x = torch.randn(*((batch, steps) if layer.batch_first else (steps, batch)), 5, dtype=dtype)
    hx = states_of(layer, batch, dtype) if with_state else None
    taken = counted(monkeypatch)
    short, general = both_ways(layer, x, hx, monkeypatch)
    assert taken == [True]
    assert_same_bits(flat(short), flat(general))


@each_cell
@pytest.mark.parametrize("dtype", [torch.float32, *NARROW])
@pytest.mark.parametrize("switch", ["highest", "high", "medium"])
def test_every_instruction_set_and_precision_has_the_bits_of_the_general_way(
    cell, dtype, switch, each_isa, monkeypatch
):
    layer, taken = layer_of(cell, dtype=dtype, num_layers=2), counted(monkeypatch)
    torch.set_float32_matmul_precision(switch)
    try:
        for isa in each_isa:
            _kernels.force_isa(isa)
            for steps, batch in ((1, 1), (1, 20), (6, 1), (5, 4)):
                x, hx = torch.randn(steps, batch, 5, dtype=dtype), states_of(layer, batch, dtype)
                short, general = both_ways(layer, x, hx, monkeypatch)
                assert short[0].dtype == dtype
                assert_same_bits(flat(short), flat(general), (isa, steps, batch))
        assert False not in taken
    finally:
        torch.set_float32_matmul_precision("highest")


@each_cell
@pytest.mark.parametrize("kind", ["packed sequence", "Packed"])
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("dtype", DTYPES)
def test_packed_kinds_of_equally_long_sequences(cell, kind, steps, layers, dtype, monkeypatch):
    layer, rows = layer_of(cell, dtype=dtype, num_layers=layers), torch.randn(4, steps, 5, dtype=dtype)
    if kind == "packed sequence":
        x = pack_sequence(list(rows))
    else:
        x = padless.Packed(rows.flatten(0, 1), [steps] * 4)
    hx = states_of(layer, 4, dtype)
    taken = counted(monkeypatch)
    short, general = both_ways(layer, x, hx, monkeypatch)
    assert taken == [True]
    assert type(short[0]) is type(general[0]) is type(x)
    assert_same_bits(flat(short), flat(general))


@each_cell
@pytest.mark.parametrize("sizes", [[3, 2, 3], [3, 3, 2], [2, 3, 3], [3, 3, 3]])
def test_batch_sizes_that_are_not_equal_or_forged_take_the_general_way(cell, sizes, monkeypatch):
    layer, taken = layer_of(cell), counted(monkeypatch)
    x = torch.nn.utils.rnn.PackedSequence(torch.randn(8, 5), torch.tensor(sizes))
    with torch.no_grad():
        if sizes == [3, 3, 2]:
            layer(x)
        else:
            with pytest.raises(padless.errors.LayoutError):
                layer(x)
    assert True not in taken


@each_cell
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_and_states_that_are_not_contiguous(cell, dtype, monkeypatch):
    layer = layer_of(cell, dtype=dtype)
    x = torch.randn(4, 3, 5, dtype=dtype).transpose(0, 1)[1:2]
    states = states_of(layer, 4, dtype)
    parts = states if cell == "LSTM" else (states,)
    apart = tuple(torch.stack([s, s], -1)[..., 0] for s in parts)
    hx = apart if cell == "LSTM" else apart[0]
    taken = counted(monkeypatch)
    short, general = both_ways(layer, x, hx, monkeypatch)
    assert taken == [True]
    assert_same_bits(flat(short), flat(general))


@each_cell
def test_a_sequence_fed_step_by_step_has_the_bits_of_the_whole(cell):
    layer, x = layer_of(cell), torch.randn(300, 2, 5)
    with torch.no_grad():
        whole, last = layer(x)
        stepped, state = fed_step_by_step(layer, x)
    assert_same_bits(flat((stepped, state)), flat((whole, last)))


@each_cell
@pytest.mark.parametrize("dtype", [torch.float32, *NARROW])
def test_every_change_of_the_weights_is_seen(cell, dtype, monkeypatch):
    layer, x = layer_of(cell, dtype=dtype), torch.randn(1, 2, 5, dtype=dtype)
    other = copy.deepcopy(layer)

    def check():
        short, general = both_ways(layer, x, None, monkeypatch)
        assert_same_bits(flat(short), flat(general))
        return short[0]

    outputs = [check()]
    layer.weight_hh_l0.data.mul_(1.5)
    layer.weight_ih_l0.data[0, 0] += 1
    outputs.append(check())
    layer.bias_ih_l0.data = layer.bias_ih_l0.data + 1  # other memory
    outputs.append(check())
    layer.weight_ih_l0 = torch.nn.Parameter(torch.randn_like(layer.weight_ih_l0))
    outputs.append(check())
    layer.load_state_dict(other.state_dict())
    assert torch.equal(check(), outputs[0])
    layer.weight_ih_l0.data = torch.randn(5, layer.weight_ih_l0.shape[0], dtype=dtype).t()  # not contiguous
    outputs.append(check())
    layer.double()
    x = x.double()
    outputs.append(check())
    for a, b in pairwise(outputs):
        assert a.dtype != b.dtype or not torch.equal(a, b)


@each_cell
def test_errors_are_those_of_the_general_way(cell, monkeypatch):
    layer = layer_of(cell)
    wrong = [
        (torch.randn(1, 2, 4), None),
        (torch.randn(1, 2, 5, dtype=torch.float64), None),
        (torch.randn(1, 2, 5), states_of(layer, 3)),
        (torch.randn(1, 2, 5), (torch.randn(1, 2, 7),) * 3),
        (torch.randn(1, 2, 5), "state"),
        (torch.randn(1, 2, 5), (torch.randn(1, 2, 7),)),
    ]
    with torch.no_grad():
        layer(torch.randn(1, 2, 5))  # prepared for float32 and these sizes
    for x, hx in wrong:
        with pytest.raises(Exception) as short, torch.no_grad():
            layer(x, hx)
        with monkeypatch.context() as patch, torch.no_grad():
            without_short_way(patch)
            with pytest.raises(short.type) as general:
                layer(x, hx)
        assert str(short.value) == str(general.value)


@each_cell
def test_what_was_prepared_goes_with_the_module(cell):
    layer = layer_of(cell)
    with torch.no_grad():
        layer(torch.randn(1, 1, 5))
    key = id(layer)
    assert key in _steps._prepared
    del layer
    gc.collect()
    assert key not in _steps._prepared


@each_cell
@pytest.mark.parametrize("kind", ["padded", "batch first", "PackedSequence", "Packed"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
def test_one_step_in_training_has_the_gradients_of_each_sequence_alone(
    cell, kind, bias, with_state, monkeypatch
):
    """Against torch's layer on one sequence at a time and, to the second derivative, the general way."""
    options = {"dtype": torch.float64, "num_layers": 2, "bias": bias, "batch_first": kind == "batch first"}
    layer = layer_of(cell, **options)
    theirs = getattr(torch.nn, cell)(5, 7, **options)
    theirs.load_state_dict(layer.state_dict())
    rows, given = torch.randn(4, 5, dtype=torch.float64), states_of(layer, 4, torch.float64)
    parts = (given if cell == "LSTM" else (given,)) if with_state else ()

    def loss_of(values):
        return sum((at * value).sum() + value.pow(2).sum() for at, value in enumerate(values, 1))

    def ours(leaf, states):
        if kind == "padded":
            x = leaf[None]
        elif kind == "batch first":
            x = leaf[:, None]
        elif kind == "PackedSequence":
            x = pack_sequence(list(leaf[:, None]))
        else:
            x = padless.Packed(leaf, [1] * 4)
        result = layer(x, (states if cell == "LSTM" else states[0]) if states else None)
        if kind in ("padded", "batch first"):
            assert result[0].shape == (*x.shape[:2], 7)
        return [each.reshape(-1, 7) if at == 0 else each for at, each in enumerate(flat(result))]

    def alone(leaf, states):
        results = []
        for i in range(4):
            own = tuple(s[:, i : i + 1] for s in states)
            output, last = theirs(leaf[i].view(1, 1, 5), (own if cell == "LSTM" else own[0]) if own else None)
            results.append([output.view(1, 7), *(last if cell == "LSTM" else (last,))])
        return [torch.cat(each, 0 if at == 0 else 1) for at, each in enumerate(zip(*results, strict=True))]

    def gradients(module, run, second=True):
        leaf = rows.clone().requires_grad_()
        states = tuple(s.clone().requires_grad_() for s in parts)
        values = run(leaf, states)
        wanted = [leaf, *states, *module.parameters()]
        first = torch.autograd.grad(loss_of(values), wanted, create_graph=second)
        if not second:
            return [*values, *first]
        return [*values, *first, *torch.autograd.grad(sum(g.pow(2).sum() for g in first), wanted)]

    taken = counted(monkeypatch)
    short = gradients(layer, ours)
    assert taken == [True]
    for got, expected in zip(short, gradients(theirs, alone, second=False), strict=False):
        torch.testing.assert_close(got, expected)
    without_short_way(monkeypatch)
    torch.testing.assert_close(short, gradients(layer, ours))


@each_cell
@pytest.mark.parametrize("kind", ["padded", "Packed"])
def test_results_of_one_step_may_be_changed_in_place_before_backward(cell, kind):
    layer = layer_of(cell)
    rows = torch.randn(4, 5)
    expected = [value.detach().clone() for value in flat(layer(rows[None]))]
    output, last = layer(rows[None] if kind == "padded" else padless.Packed(rows, [1] * 4))
    results = [output if kind == "padded" else output.data, *(last if cell == "LSTM" else (last,))]
    for at, value in enumerate(results):
        value.mul_(2)
        for other in range(at + 1, len(results)):
            assert torch.equal(results[other], expected[other])
    sum(value.sum() for value in results).backward()
    assert all(p.grad is not None for p in layer.parameters())


@each_cell
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"])
def test_forged_weights_are_refused_in_training(cell, name):
    layer = layer_of(cell)
    setattr(layer, name, torch.nn.Parameter(getattr(layer, name)[:1].clone()))
    with pytest.raises(RuntimeError, match=f"{name} must have shape"):
        layer(torch.randn(1, 2, 5))


@each_cell
def test_a_forced_backend_trains_one_step_itself(cell, monkeypatch):
    taken = counted(monkeypatch)
    with padless.backends.use("native"):
        layer_of(cell)(torch.randn(1, 2, 5))
    assert taken == [False]


@each_cell
@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "bias_ih_l0"])
@pytest.mark.parametrize("before", [False, True])
def test_forged_weights_and_sizes_never_reach_the_kernel(cell, name, before, monkeypatch):
    layer = layer_of(cell)
    taken = counted(monkeypatch)
    with torch.no_grad():
        if before:
            layer(torch.randn(1, 2, 5))
        right = getattr(layer, name)
        setattr(layer, name, torch.nn.Parameter(right[:-1].clone()))
        with pytest.raises(RuntimeError, match=f"{name} must have shape"):
            layer(torch.randn(1, 2, 5))
        setattr(layer, name, right)
        layer.input_size = 50
        with pytest.raises(RuntimeError, match="weight_ih_l0 must have shape"):
            layer(torch.randn(1, 2, 50))
    assert taken == [True] * before + [False, False]


@each_cell
@pytest.mark.parametrize("dtype", [torch.float32, *NARROW])
def test_calls_in_several_threads_have_memory_of_their_own(cell, dtype):
    layer = getattr(padless.nn, cell)(64, 64, dtype=dtype)
    x = torch.randn(40, 2, 64, dtype=dtype)
    steps = [*x.split(1), *x.split(4)]

    @torch.no_grad()
    def run(step):
        return layer(step)[0]

    expected = [run(step) for step in steps]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, right in zip(pool.map(run, steps), expected, strict=True):
                assert torch.equal(got, right)


@each_cell
def test_another_dtype_after_the_first_call_is_refused(cell):
    layer = layer_of(cell)
    with torch.no_grad():
        layer(torch.randn(1, 2, 5))
        with pytest.raises((RuntimeError, ValueError), match=r"dtype|Float|Double"):
            layer(torch.randn(1, 2, 5, dtype=torch.float64))


@each_cell
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_weights_packed_panel_by_panel_give_the_bits_of_kept_ones(cell, bias, dtype, each_isa, monkeypatch):
    sizes = [(1, 1), (7, 3), (17, 12), (40, 1), (64, 1), (100, 2), (130, 12), (133, 1), (1024, 1)]
    for isa in each_isa:
        _kernels.force_isa(isa)
        for width, batch in sizes:
            torch.manual_seed(width)
            layer = getattr(padless.nn, cell)(width + 3, width, bias=bias, dtype=dtype)
            x = torch.randn(1, batch, width + 3, dtype=dtype)
            with torch.no_grad(), monkeypatch.context() as patch:
                once = flat(layer(x))
                patch.setattr(prepared, "_FEW_ROWS", 0)
                kept = flat(copy.deepcopy(layer)(x))
            assert_same_bits(once, kept, (isa, width, batch))


@each_cell
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 40), (16, 1), (20, 12)])
def test_small_calls_with_much_work_use_torchs_threads_and_keep_their_bits(
    cell, dtype, batch, steps, monkeypatch
):
    layer = getattr(padless.nn, cell)(1100, 530, dtype=dtype)  # two threads even for one row
    x, teams, threads_for = torch.randn(steps, batch, 1100, dtype=dtype), [], _kernels.threads_for
    monkeypatch.setattr(
        _kernels, "threads_for", lambda *sizes: teams.append(threads_for(*sizes)) or teams[-1]
    )
    taken, before, results = counted(monkeypatch), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            with torch.no_grad():
                results.append(flat(layer(x)))
    finally:
        torch.set_num_threads(before)
    assert taken == [True, True] and (teams == [1, 2] or cell == "RNN")
    assert_same_bits(*results)
