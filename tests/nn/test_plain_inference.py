"""Inference on prepared layers: the bits of the general path for any input, and no other call takes it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

import padless
from padless.backends import _kernels
from padless.errors import LayoutError

from .short_kit import assert_same_bits, counted, each_cell, flat, layer_of, states_of, without_short_way

LENGTHS = [9, 0, 40, 3, 40, 1, 0, 17]
KINDS = ["sorted", "unsorted", "Packed", "lengths", "lengths, steps first", "padded", "nested"]
each_kind = pytest.mark.parametrize("kind", KINDS)


def call_of(layer, kind, dtype, lengths=LENGTHS):
    """A call `(hx) -> result` of the layer with an input of this kind, and B."""
    torch.manual_seed(2)
    if kind in ("sorted", "unsorted", "nested"):
        lengths = [n for n in lengths if n]
    rows = torch.randn(sum(lengths), layer.input_size, dtype=dtype)
    packed = padless.Packed(rows, lengths)
    x, options = packed, {}
    if kind in ("sorted", "unsorted"):
        length = torch.tensor(lengths)
        if kind == "sorted":
            length = length.sort(descending=True)[0]
        x = pack_padded_sequence(packed.pad(), length, batch_first=True, enforce_sorted=kind == "sorted")
    elif kind.startswith("lengths"):
        layer.batch_first = kind == "lengths"
        x, options = packed.pad(batch_first=layer.batch_first), {"lengths": lengths}
    elif kind == "padded":
        layer.batch_first = True
        x = packed.pad()
    elif kind == "nested":
        x = packed.to_nested()
    return lambda hx=None: layer(x, hx, **options), len(lengths)


@torch.no_grad()
def both_ways(call, hx, monkeypatch):
    """Results of the prepared layers and of the general path."""
    plain = call(hx)
    with monkeypatch.context() as patch:
        without_short_way(patch)
        return plain, call(hx)


def values_of(result):
    output, state = result
    if isinstance(output, torch.Tensor) and output.is_nested:
        output = output.values()
    return flat((output, state))


@each_cell
@each_kind
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"num_layers": 2, "bidirectional": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("with_state", [True, False])
def test_prepared_layers_have_the_bits_of_the_general_path(
    cell, kind, options, dtype, with_state, monkeypatch
):
    layer = layer_of(cell, dtype=dtype, **options)
    call, batch = call_of(layer, kind, dtype)
    hx = states_of(layer, batch, dtype) if with_state else None
    taken = counted(monkeypatch, "infer_plain")
    plain, general = both_ways(call, hx, monkeypatch)
    assert taken == [True]
    assert type(plain[0]) is type(general[0])
    assert_same_bits(values_of(plain), values_of(general))


@each_cell
@pytest.mark.parametrize("kind", ["unsorted", "Packed", "lengths"])
@pytest.mark.parametrize("switch", ["highest", "high", "medium"])
def test_every_instruction_set_and_precision(cell, kind, switch, each_isa, monkeypatch):
    layer = layer_of(cell)
    call, batch = call_of(layer, kind, torch.float32)
    hx = states_of(layer, batch)
    torch.set_float32_matmul_precision(switch)
    try:
        for isa in each_isa:
            _kernels.force_isa(isa)
            plain, general = both_ways(call, hx, monkeypatch)
            assert_same_bits(values_of(plain), values_of(general), isa)
    finally:
        torch.set_float32_matmul_precision("highest")


@each_cell
def test_an_unbatched_sequence(cell, monkeypatch):
    layer, x, taken = layer_of(cell), torch.randn(300, 5), counted(monkeypatch, "infer_plain")
    plain, general = both_ways(lambda hx: layer(x, hx), None, monkeypatch)
    assert taken == [True]
    assert [t.dim() for t in flat(plain)] == [2] * len(flat(plain))
    assert_same_bits(flat(plain), flat(general))


@each_cell
def test_states_that_are_not_contiguous(cell, monkeypatch):
    layer, taken = layer_of(cell, num_layers=2), counted(monkeypatch, "infer_plain")
    call, batch = call_of(layer, "Packed", torch.float32)
    hx = states_of(layer, batch)
    apart = tuple(torch.stack([s, s], -1)[..., 0] for s in (hx if cell == "LSTM" else (hx,)))
    plain, general = both_ways(call, apart if cell == "LSTM" else apart[0], monkeypatch)
    assert taken == [True]
    assert_same_bits(flat(plain), flat(general))
    assert_same_bits(flat(plain), flat(both_ways(call, hx, monkeypatch)[0]))


@each_cell
def test_results_share_no_memory(cell):
    layer = layer_of(cell, num_layers=2)
    call, batch = call_of(layer, "Packed", torch.float32)
    hx = states_of(layer, batch)
    with torch.no_grad():
        results = flat(call(hx)) + flat(call(hx))
    given = hx if cell == "LSTM" else (hx,)
    places = [t.untyped_storage().data_ptr() for t in (*results, *given)]
    assert len(set(places)) == len(places)


@each_cell
@pytest.mark.parametrize("kind", ["unsorted", "Packed"])
def test_every_change_of_the_weights_is_seen(cell, kind, monkeypatch):
    layer = layer_of(cell)
    call, _ = call_of(layer, kind, torch.float32)
    outputs = []
    for change in (
        lambda: None,
        lambda: layer.weight_hh_l0.data.mul_(1.5),
        lambda: layer.double().float().weight_ih_l0.data.add_(1),
        lambda: setattr(layer, "weight_ih_l0", torch.nn.Parameter(torch.randn_like(layer.weight_ih_l0))),
    ):
        change()
        plain, general = both_ways(call, None, monkeypatch)
        assert_same_bits(flat(plain), flat(general))
        outputs.append(flat(plain)[0])
    assert all(not torch.equal(a, b) for a, b in pairwise(outputs))


@each_cell
@pytest.mark.parametrize(
    "fields",
    [
        ([2, 3, 2], None, None),
        ([3, 3, 2], None, None),
        ([4, 3, 0], None, None),
        ([8, -1], None, None),
        ([3, 2, 2], [0, 1, 1], [0, 1, 2]),
        ([3, 2, 2], [0, 1, 3], [0, 1, 2]),
        ([3, 2, 2], [0, 1, -1], [0, 1, 2]),
        ([3, 2, 2], [1, 2, 0], [1, 2, 0]),
        ([3, 2, 2], [1, 2, 0], [1, 2]),
        ([3, 2, 2], [1, 0], [1, 0]),
        ([3, 2, 2], None, [0, 0, 1]),
        ([3, 2, 2], [0, 0, 1], None),
    ],
)
def test_forged_packed_sequences_are_refused_as_before(cell, fields, monkeypatch):
    sizes, order, slots = (None if numbers is None else torch.tensor(numbers) for numbers in fields)
    forged = PackedSequence._make((torch.randn(7, 5), sizes, order, slots))
    layer, errors = layer_of(cell), []
    for grad in (True, False):
        with torch.set_grad_enabled(grad), pytest.raises(LayoutError) as raised:
            layer(forged)
        errors.append(str(raised.value))
    assert errors[0] == errors[1]


@each_cell
def test_wrong_states_are_refused_with_the_errors_of_the_general_path(cell, monkeypatch):
    layer = layer_of(cell)
    call, batch = call_of(layer, "Packed", torch.float32)
    right = states_of(layer, batch)
    call_without_grad = torch.no_grad()(call)
    wrong = ["state", (right,) * 3, states_of(layer, batch + 1), states_of(layer, batch, torch.float64), [1]]
    for hx in wrong:
        with pytest.raises(Exception) as plain:
            call_without_grad(hx)
        with monkeypatch.context() as patch:
            without_short_way(patch)
            with pytest.raises(plain.type) as general:
                call_without_grad(hx)
        assert str(plain.value) == str(general.value)


OTHER_CALLS = ["training", "float16", "portable", "autocast", "no steps"]


@pytest.mark.parametrize(
    ("cell", "why"), [("LSTM", "projection"), *((c, w) for c in ("LSTM", "GRU", "RNN") for w in OTHER_CALLS)]
)
def test_other_calls_take_the_general_path(cell, why, monkeypatch):
    dtype = torch.float16 if why == "float16" else torch.float32
    layer = layer_of(cell, dtype=dtype, **({"proj_size": 3} if why == "projection" else {}))
    call, _ = call_of(layer, "Packed", dtype, [0, 0] if why == "no steps" else LENGTHS)
    taken = counted(monkeypatch, "infer_plain")
    backend = "portable" if why == "portable" else None
    with (
        torch.set_grad_enabled(why == "training"),
        padless.backends.use(backend),
        torch.autocast("cpu", enabled=why == "autocast"),
    ):
        call()
    assert taken == [False]


@each_cell
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_calls_in_several_threads_have_memory_of_their_own(cell, dtype):
    layer = getattr(padless.nn, cell)(64, 64, num_layers=2, dtype=dtype)
    torch.manual_seed(3)
    inputs = [
        padless.Packed(torch.randn(sum(lengths), 64, dtype=dtype), lengths)
        for lengths in ([30, 1, 50], [7] * 40, [90, 0, 80], [2, 300])
    ] * 4
    inputs = [x if at % 2 else x.to_packed_sequence() for at, x in enumerate(inputs)]

    @torch.no_grad()
    def run(x):
        return flat(layer(x))

    expected = [run(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for got, right in zip(pool.map(run, inputs), expected, strict=True):
                assert_same_bits(got, right)


def test_index_arrays_of_a_recorded_call_are_copied():
    layer = layer_of("LSTM", dtype=torch.float64)
    x = pack_padded_sequence(
        torch.randn(9, 3, 5, dtype=torch.float64), torch.tensor([4, 9, 2]), enforce_sorted=False
    )
    expected = torch.autograd.grad(flat(layer(x))[0].sum(), layer.weight_hh_l0)
    output = flat(layer(x))[0].sum()
    x.batch_sizes.fill_(3)
    x.sorted_indices.fill_(0)
    assert torch.equal(torch.autograd.grad(output, layer.weight_hh_l0)[0], expected[0])
