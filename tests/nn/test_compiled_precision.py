"""Compiled layers under autocast, torch's precision switch and `recompute`: eager mode's bits, and what is kept."""

from __future__ import annotations

import os

import pytest
import torch
from torch.utils._pytree import tree_leaves

import padless
from padless.backends import _kernels

from .test_compile import jagged, packed, packed_sequence, padded, ragged, sorted_packed_sequence, values

KINDS = [padded, ragged, packed_sequence, packed]
LAYERS = [
    ("LSTM", {"num_layers": 2}),
    ("LSTM", {"proj_size": 3, "bias": False}),
    ("GRU", {"bidirectional": True}),
    ("RNN", {}),
]
# To compile takes seconds, so no test takes every layer with every kind.
ONE_KIND_EACH = [(*layer, KINDS[i]) for i, layer in enumerate(LAYERS)]
TWO_KINDS_EACH = [*ONE_KIND_EACH, *((*layer, KINDS[(i + 1) % 4]) for i, layer in enumerate(LAYERS))]
# torch warns of its own code while it compiles.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
    pytest.mark.skipif(
        "native" not in padless.backends.available(), reason="the native kernels were not built"
    ),
]


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


@pytest.fixture(autouse=True)
def isa():
    """Products of bfloat16 numbers, in all precisions, on every machine."""
    _kernels.force_isa("amx_emulated")
    yield _kernels.force_isa
    torch.set_float32_matmul_precision("highest")
    _kernels.force_isa(os.environ.get("PADLESS_ISA"))


def compiled(function, backend="aot_eager"):
    return torch.compile(function, fullgraph=True, dynamic=True, backend=backend)


def graphs() -> int:
    return torch._dynamo.utils.counters["stats"]["unique_graphs"]


def backward(module, found, rows) -> list[torch.Tensor]:
    """Gradients of the rows, if they are a leaf, and of every parameter."""
    leaves = [leaf for leaf in (rows, *module.parameters()) if leaf.requires_grad]
    return list(torch.autograd.grad(sum(value.double().square().sum() for value in found), leaves))


def with_gradient(arguments):
    """The arguments with rows that are a leaf, and the rows; jagged ones are left alone, for Dynamo warns of them."""
    (given,) = arguments
    if isinstance(given, padless.Packed):
        rows = given.data.detach().requires_grad_()
        return (padless.Packed(rows, given.lengths),), rows
    if isinstance(given, torch.nn.utils.rnn.PackedSequence):
        rows = given.data.detach().requires_grad_()
        return (type(given)(rows, *given[1:]),), rows
    if given.is_nested:
        return arguments, given.values()
    rows = given.detach().requires_grad_()
    return (rows,), rows


def assert_same(got, want):
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        assert torch.equal(a, b)


# ---- autocast


def in_both_modes_under_autocast(layer, kind) -> list[list[torch.Tensor]]:
    """Results and gradients in eager mode and compiled, of two sizes."""
    run, found = compiled(layer), [[], []]
    for batch, steps in ((3, 5), (4, 7)):
        arguments, named = kind(batch, steps)
        arguments, rows = with_gradient(arguments)
        for mode, each in enumerate((layer, run)):
            with torch.autocast("cpu", torch.bfloat16):
                got = values(each(*arguments, **named))
            found[mode] += got + backward(layer, got, rows)
    return found


@pytest.mark.parametrize(("cell", "options", "kind"), TWO_KINDS_EACH)
def test_autocast_around_a_compiled_layer_has_the_bits_and_dtypes_of_eager_mode(cell, options, kind):
    layer = getattr(padless.nn, cell)(5, 6, batch_first=True, **options)
    eager, got = in_both_modes_under_autocast(layer, kind)
    assert_same(got, eager)
    assert all(a.dtype == torch.float32 for a in got[-len(list(layer.parameters())) :])


@pytest.mark.parametrize("kind", [sorted_packed_sequence, jagged])
def test_autocast_on_the_other_kinds_of_input(kind):
    eager, got = in_both_modes_under_autocast(padless.nn.LSTM(5, 6, batch_first=True), kind)
    assert_same(got, eager)


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_autocast_without_bfloat16_products_computes_in_float32_as_eager_mode_does(cell, isa):
    isa("baseline")
    eager, got = in_both_modes_under_autocast(getattr(padless.nn, cell)(5, 6, batch_first=True), ragged)
    assert_same(got, eager)


@pytest.mark.parametrize("backend", ["eager", "aot_eager", "inductor"])
def test_autocast_inside_of_a_compiled_function_is_seen_and_leaving_it_too(backend):
    layer = padless.nn.GRU(5, 6, batch_first=True)

    def function(x, lengths):
        with torch.autocast("cpu", torch.bfloat16):
            low = layer(x, lengths=lengths)[0]
        return low, layer(x, lengths=lengths)[0]

    arguments, named = ragged(4, 6)
    run = compiled(function, backend)
    assert_same(run(*arguments, **named), function(*arguments, **named))
    low, full = run(*arguments, **named)
    assert not torch.equal(low, full)


def test_a_compiled_layer_is_compiled_again_when_autocast_changes():
    layer = padless.nn.LSTM(5, 6, batch_first=True)
    run = compiled(layer)
    x = torch.randn(3, 4, 5)
    for enabled in (False, True, False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            assert_same(tree_leaves(run(x)), tree_leaves(layer(x)))
    assert graphs() == 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_takes_rows_and_states_of_any_dtype(dtype):
    layer = padless.nn.LSTM(5, 6, batch_first=True)
    run = compiled(layer)
    x, state = torch.randn(3, 4, 5), (torch.randn(1, 3, 6), torch.randn(1, 3, 6))
    x, state = x.to(dtype), tuple(s.to(torch.bfloat16) for s in state)
    with torch.autocast("cpu", torch.bfloat16):
        assert_same(tree_leaves(run(x, state)), tree_leaves(layer(x, state)))


def test_float16_autocast_computes_in_float32_as_eager_mode_does():
    layer = padless.nn.GRU(5, 6)
    x = torch.randn(4, 2, 5)
    with torch.autocast("cpu", torch.float16):
        assert_same(tree_leaves(compiled(layer)(x)), tree_leaves(layer(x)))


@pytest.mark.parametrize("autocasts", [False, True])
@pytest.mark.parametrize("fullgraph", [False, True])
def test_another_backend_is_followed_by_compiling_again(fullgraph, autocasts):
    layer = padless.nn.GRU(5, 6, batch_first=True)
    run = torch.compile(layer, fullgraph=fullgraph, dynamic=True)
    arguments, named = ragged(3, 4)
    arguments, rows = with_gradient(arguments)
    found = []
    for name in (None, "portable", None):
        with (
            padless.backends.use(name),
            torch.autocast("cpu", torch.bfloat16, enabled=autocasts),
        ):
            pairs = []
            for each in (layer, run):
                got = values(each(*arguments, **named))
                pairs.append(got + backward(layer, got, rows))
        for want, value in zip(*pairs, strict=True):
            torch.testing.assert_close(value, want)
        found.append(pairs[1])
    assert_same(found[0], found[2])
    assert not torch.equal(found[0][0], found[1][0])
    assert graphs() == 2


def test_backward_may_run_on_another_backend_than_its_forward():
    layer = padless.nn.LSTM(5, 6, batch_first=True)
    arguments, named = ragged(3, 4)
    arguments, rows = with_gradient(arguments)
    found = []
    for name in (None, "portable"):
        got = values(compiled(layer)(*arguments, **named))
        with padless.backends.use(name):
            found.append(backward(layer, got, rows))
    for want, value in zip(*found, strict=True):
        torch.testing.assert_close(value, want)


@pytest.mark.parametrize("chosen", ["native", "portable"])
def test_the_operator_takes_lowered_rows_on_every_backend(chosen):
    """A program that was compiled for one backend may run while another is chosen."""
    arguments = [torch.randn(s) for s in ((18, 5), (18, 6), (18,), (18,))]
    sizes, h0 = torch.tensor([3, 3, 1]), torch.randn(3, 6)
    rows = torch.randn(7, 5).bfloat16().requires_grad_()
    with padless.backends.use(chosen), torch.autocast("cpu", torch.bfloat16):
        output, h_n, _, _ = torch.ops.padless.layer(
            "GRU", rows, sizes, None, None, None, h0, None, *arguments, None, False, None, "gates", False
        )
        (output.float().square().sum() + h_n.square().sum()).backward()
    assert output.dtype == rows.grad.dtype == torch.bfloat16 and h_n.dtype == torch.float32
    exact = torch.nn.GRU(5, 6, dtype=torch.float64)
    for parameter, value in zip(exact.parameters(), arguments, strict=True):
        parameter.data.copy_(value)
    wide = rows.detach().double().requires_grad_()
    packed = torch.nn.utils.rnn.PackedSequence(wide, sizes)
    want, final = exact(packed, h0.double()[None])
    (want.data.square().sum() + final.square().sum()).backward()
    scale = wide.grad.abs().max().item()
    torch.testing.assert_close(output.double(), want.data, rtol=0, atol=6e-2)
    torch.testing.assert_close(h_n.double(), final[0], rtol=0, atol=6e-2)
    torch.testing.assert_close(rows.grad.double(), wide.grad, rtol=0, atol=6e-2 * scale)


# ---- the precision switch


@pytest.mark.parametrize(
    ("cell", "kind"),
    [
        *(("LSTM", kind) for kind in (padded, packed_sequence, packed, sorted_packed_sequence)),
        *(("GRU", kind) for kind in (padded, ragged, packed, jagged)),
    ],
)
def test_the_switch_is_read_when_a_compiled_program_runs(cell, kind):
    layer = getattr(padless.nn, cell)(5, 6, batch_first=True)
    run = compiled(layer)
    arguments, named = kind(4, 6)
    arguments, rows = with_gradient(arguments)
    outputs = []
    for switch in ("highest", "high", "medium", "highest"):
        torch.set_float32_matmul_precision(switch)
        found = []
        for each in (layer, run):
            got = values(each(*arguments, **named))
            found.append(got + backward(layer, got, rows))
        assert_same(found[1], found[0])
        outputs.append(found[0][0])
    assert torch.equal(outputs[0], outputs[3])
    assert not torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[1], outputs[2])


@pytest.mark.parametrize(
    ("forward", "later", "recomputes", "kind"),
    [
        ("high", "highest", False, padded),
        ("high", "highest", True, ragged),
        ("medium", "high", False, ragged),
        ("medium", "high", True, padded),
        ("highest", "medium", False, padded),
        ("highest", "medium", True, ragged),
    ],
)
def test_a_compiled_backward_follows_the_precision_of_its_forward(kind, forward, later, recomputes):
    layer = padless.nn.LSTM(5, 6, batch_first=True)
    run = compiled(layer)
    arguments, named = kind(4, 6)
    arguments, rows = with_gradient(arguments)
    found = []
    for during_backward in (forward, later):
        with padless.backends.recompute(recomputes):
            torch.set_float32_matmul_precision(forward)
            got = values(run(*arguments, **named))
            torch.set_float32_matmul_precision(during_backward)
            found.append(backward(layer, got, rows))
    assert_same(*found)


def test_an_exported_program_follows_the_precision_of_its_forward_when_it_is_trained():
    layer = padless.nn.LSTM(5, 6)
    run = torch.export.export(layer, (torch.randn(4, 3, 5),)).module()
    x = torch.randn(4, 3, 5, requires_grad=True)
    found = []
    for during_backward in ("high", "medium"):
        torch.set_float32_matmul_precision("high")
        got = values(run(x))
        torch.set_float32_matmul_precision(during_backward)
        found.append(backward(run, got, x))
    assert_same(*found)


# ---- what is kept for backward


def kept_bytes(run, arguments, named) -> int:
    """Bytes that one forward keeps, each memory counted once."""
    kept = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = run(*arguments, **named)
    assert kept
    del result
    return sum(kept.values())


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_layer_keeps_gates_of_real_rows_only(backend):
    layer = padless.nn.LSTM(5, 64, batch_first=True)
    x = torch.randn(20, 30, 5)
    run = compiled(layer, backend)
    sizes = {}
    for lengths in ([30] * 20, [30] + [3] * 19):
        sizes[sum(lengths)] = kept_bytes(run, (x,), {"lengths": torch.tensor(lengths)})
    saved = 4 * 5 * 64  # 4 gates and the cell of a row, in float32
    assert sizes[600] - sizes[87] == (600 - 87) * saved
    assert graphs() == 1


def test_gates_of_bfloat16_products_are_kept_in_bfloat16():
    layer = padless.nn.LSTM(5, 64, batch_first=True)
    x = torch.randn(20, 30, 5)
    run = compiled(layer)
    highest = kept_bytes(run, (x,), {})
    torch.set_float32_matmul_precision("medium")
    assert highest - kept_bytes(run, (x,), {}) == 600 * 4 * 64 * 2


@pytest.mark.parametrize(("cell", "options", "kind"), ONE_KIND_EACH)
def test_recompute_in_a_compiled_program_keeps_less_and_every_bit_of_the_gradients(cell, options, kind):
    layer = getattr(padless.nn, cell)(5, 6, batch_first=True, **options)
    run = compiled(layer)
    arguments, named = kind(4, 6)
    arguments, rows = with_gradient(arguments)
    count = named["lengths"].sum().item() if named else rows.numel() // 5
    found, sizes = [], []
    for recomputes in (False, True, False):
        with padless.backends.recompute(recomputes):
            sizes.append(kept_bytes(run, arguments, named))
            got = values(run(*arguments, **named))
        found.append(got + backward(layer, got, rows))
    assert_same(found[0], found[1])
    passes = layer.num_layers * (2 if layer.bidirectional else 1)
    gates = 0 if cell == "RNN" else 4 * 16 * 4
    assert sizes[0] - sizes[1] == passes * count * gates and sizes[2] == sizes[0]
    assert graphs() == 2


def test_recompute_inside_of_a_compiled_function():
    layer = padless.nn.GRU(5, 6)

    def function(x):
        with padless.backends.recompute():
            return layer(x)[0]

    x = torch.randn(4, 3, 5)
    less, more = (kept_bytes(compiled(each), (x,), {}) for each in (function, layer))
    assert more - less == 12 * 4 * 16 * 4
    assert not padless.backends._recompute.is_recomputing()


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_padded_layer_is_in_the_graph_where_sizes_must_be_known(backend):
    """Without `fullgraph` Dynamo takes no operator whose result has a size that only values tell."""
    layer = padless.nn.LSTM(5, 6, batch_first=True)
    run = torch.compile(layer, dynamic=True, backend=backend)
    for switch in ("highest", "medium"):
        torch.set_float32_matmul_precision(switch)
        for arguments, named in (padded(4, 6), ragged(4, 6)):
            arguments, rows = with_gradient(arguments)
            found = []
            for each in (layer, run):
                got = values(each(*arguments, **named))
                found.append(got + backward(layer, got, rows))
            assert_same(found[1], found[0])
    assert not torch._dynamo.utils.counters["graph_break"]
