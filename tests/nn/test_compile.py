"""`torch.compile`, `torch.export` and AOTInductor on padless layers and packing, against eager mode and torch alone."""

from __future__ import annotations

import subprocess
import sys

import numpy
import pytest
import torch
from torch.export import Dim
from torch.utils._pytree import tree_leaves

import padless
from padless.backends import operators
from padless.rnn import pack_padded_sequence, pad_packed_sequence

CELLS = ("LSTM", "GRU", "RNN")
# torch warns of its own code while it compiles.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def lengths_up_to(steps: int, batch: int, *, shortest: int = 0) -> list[int]:
    return [steps, *torch.randint(shortest, steps + 1, (batch - 1,)).tolist()]


def padded(batch, steps):
    return (torch.randn(batch, steps, 5),), {}


def ragged(batch, steps):
    return (torch.randn(batch, steps, 5),), {"lengths": torch.tensor(lengths_up_to(steps, batch))}


def packed_sequence(batch, steps):
    sequences = [torch.randn(length, 5) for length in lengths_up_to(steps, batch, shortest=1)]
    return (torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False),), {}


def sorted_packed_sequence(batch, steps):
    lengths = sorted(lengths_up_to(steps, batch, shortest=1), reverse=True)
    return (torch.nn.utils.rnn.pack_sequence([torch.randn(length, 5) for length in lengths]),), {}


def packed(batch, steps):
    lengths = lengths_up_to(steps, batch)
    return (padless.Packed(torch.randn(sum(lengths), 5), lengths),), {}


def jagged(batch, steps):
    sequences = [torch.randn(length, 5) for length in lengths_up_to(steps, batch, shortest=1)]
    return (torch.nested.nested_tensor(sequences, layout=torch.jagged),), {}


def values(result):
    """All tensors of a result, rows of any kind of batch included."""
    output, states = result
    if isinstance(output, padless.Packed):
        output = output.data
    elif isinstance(output, torch.Tensor) and output.is_nested:
        output = output.values()
    return [*tree_leaves(output)[:1], *tree_leaves(states)]


def gradients(module, found):
    module.zero_grad()
    sum((value * value).sum() for value in found).backward()
    return [parameter.grad.clone() for parameter in module.parameters()]


SIZES = ((3, 5), (4, 7), (2, 9), (6, 4), (5, 3), (7, 11), (2, 2), (9, 6), (3, 8), (4, 4))


STACKED = {"num_layers": 2, "bidirectional": True}


# Every kind with an LSTM, and each other cell with one of them: compiling takes seconds.
@pytest.mark.parametrize(
    ("cell", "options", "kind"),
    [
        *(("LSTM", STACKED, kind) for kind in (padded, packed_sequence, packed)),
        *(("LSTM", {"bidirectional": True}, kind) for kind in (ragged, sorted_packed_sequence, jagged)),
        ("LSTM", {"proj_size": 3, "bias": False}, packed),
        ("GRU", {"bidirectional": True}, ragged),
        ("RNN", {"num_layers": 2}, packed_sequence),
    ],
)
def test_a_compiled_layer_has_the_values_and_gradients_of_eager_mode(cell, options, kind):
    layer = getattr(padless.nn, cell)(5, 6, batch_first=True, **options)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, steps in SIZES:
        arguments, named = kind(batch, steps)
        expected, got = values(layer(*arguments, **named)), values(compiled(*arguments, **named))
        pairs = zip(expected + gradients(layer, expected), got + gradients(layer, got), strict=True)
        for want, value in pairs:
            torch.testing.assert_close(value, want)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3  # at most two recompilations


class Tagger(torch.nn.Module):
    """From token ids and lengths to scores and final states."""

    def __init__(self, cell: str, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.embedding = torch.nn.Embedding(20, 8, dtype=dtype)
        self.rnn = getattr(padless.nn, cell)(8, 6, 2, batch_first=True, bidirectional=True, dtype=dtype)
        self.head = torch.nn.Linear(12, 3, dtype=dtype)

    def forward(self, ids, lengths):
        rows = pack_padded_sequence(self.embedding(ids), lengths, batch_first=True, enforce_sorted=False)
        output, states = self.rnn(rows)
        scores, _ = pad_packed_sequence(output, batch_first=True)
        return self.head(scores), states


def ids_and_lengths(batch, steps):
    return torch.randint(0, 20, (batch, steps)), torch.tensor(lengths_up_to(steps, batch))


def test_inductor_trains_a_tagger_from_ids_and_lengths_to_the_loss():
    """Against each sequence alone in plain torch."""
    tagger = Tagger("LSTM", torch.float64)
    alone = torch.nn.LSTM(8, 6, 2, bidirectional=True, dtype=torch.float64)
    alone.load_state_dict(tagger.rnn.state_dict())
    compiled = torch.compile(tagger, fullgraph=True, dynamic=True)
    for batch, steps in SIZES[:4]:
        ids, lengths = ids_and_lengths(batch, steps)
        scores, (h_n, _) = compiled(ids, lengths)
        for i, length in enumerate(lengths.tolist()):
            if length == 0:
                assert not h_n[:, i].any()
                continue
            output, (h, _) = alone(tagger.embedding(ids[i, :length]))
            torch.testing.assert_close(h_n[:, i], h)
            torch.testing.assert_close(scores[i, :length], tagger.head(output))
        tagger.zero_grad()
        (scores.square().sum() + h_n.square().sum()).backward()
        got = [parameter.grad.clone() for parameter in tagger.parameters()]
        tagger.zero_grad()
        scores, (h_n, _) = tagger(ids, lengths)
        (scores.square().sum() + h_n.square().sum()).backward()
        for gradient, parameter in zip(got, tagger.parameters(), strict=True):
            torch.testing.assert_close(gradient, parameter.grad)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_an_exported_tagger_runs_at_other_sizes(cell, strict):
    tagger = Tagger(cell).eval()
    sizes = ({0: Dim.AUTO, 1: Dim.AUTO}, {0: Dim.AUTO})
    exported = torch.export.export(
        tagger, ids_and_lengths(3, 5), dynamic_shapes=sizes, strict=strict
    ).module()
    for batch, steps in ((4, 7), (2, 9), (6, 2)):
        arguments = ids_and_lengths(batch, steps)
        for want, got in zip(tree_leaves(tagger(*arguments)), tree_leaves(exported(*arguments)), strict=True):
            torch.testing.assert_close(got, want)


def test_an_exported_program_keeps_nothing_for_backward_and_can_be_trained():
    layer = padless.nn.LSTM(5, 6)
    exported = torch.export.export(layer, (torch.randn(4, 3, 5),)).module()
    x = torch.randn(4, 3, 5)
    graph = torch.export.export(layer, (x,)).graph
    assert graph.find_nodes(op="call_function", target=operators.layer)[0].args[-2] == "nothing"
    exported(x)[0].square().sum().backward()
    want = gradients(layer, [layer(x)[0]])
    for parameter, gradient in zip(exported.parameters(), want, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_an_exported_tagger_is_loaded_in_a_fresh_process(tmp_path):
    tagger = Tagger("GRU").eval()
    sizes = ({0: Dim.AUTO, 1: Dim.AUTO}, {0: Dim.AUTO})
    torch.export.save(
        torch.export.export(tagger, ids_and_lengths(3, 5), dynamic_shapes=sizes), tmp_path / "tagger.pt2"
    )
    arguments = ids_and_lengths(4, 9)
    torch.save((arguments, tagger(*arguments)), tmp_path / "expected.pt")
    program = (
        "import torch, padless.nn\n"
        "from torch.utils._pytree import tree_leaves\n"
        "run = torch.export.load('tagger.pt2').module()\n"
        "arguments, expected = torch.load('expected.pt')\n"
        "for want, got in zip(tree_leaves(expected), tree_leaves(run(*arguments)), strict=True):\n"
        "    torch.testing.assert_close(got, want)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True, timeout=120)


def test_an_aotinductor_package_runs_at_other_sizes(tmp_path):
    tagger = Tagger("LSTM").eval()
    sizes = ({0: Dim.AUTO, 1: Dim.AUTO}, {0: Dim.AUTO})
    with torch.no_grad():
        exported = torch.export.export(tagger, ids_and_lengths(3, 5), dynamic_shapes=sizes)
        package = torch._inductor.aoti_compile_and_package(
            exported, package_path=str(tmp_path / "tagger.pt2")
        )
        run = torch._inductor.aoti_load_package(package)
        for batch, steps in ((4, 7), (2, 9)):
            arguments = ids_and_lengths(batch, steps)
            for want, got in zip(tree_leaves(tagger(*arguments)), tree_leaves(run(*arguments)), strict=True):
                torch.testing.assert_close(got, want)


def test_a_compiled_layer_refuses_what_eager_mode_refuses():
    layer = padless.nn.LSTM(5, 6, batch_first=True)
    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    with pytest.raises(
        padless.LengthsError, match=r"lengths\[1\] = 9 is longer than the padded input \(T = 4\)"
    ):
        compiled(torch.randn(2, 4, 5), lengths=torch.tensor([4, 9]))
    forged = torch.nn.utils.rnn.PackedSequence(
        torch.randn(5, 5), torch.tensor([3, 2]), torch.tensor([0, 1, 1]), torch.tensor([0, 1, 2])
    )
    with pytest.raises(padless.LayoutError, match="more than once"):
        compiled(forged)


def test_an_input_without_steps_is_refused_as_in_eager_mode():
    layer = padless.nn.LSTM(5, 6, batch_first=True)
    text = "Expected sequence length to be larger than 0 in RNN"
    for empty in (torch.randn(2, 0, 5), torch.randn(0, 5)):
        with pytest.raises(RuntimeError, match=text):
            layer(empty)
        with pytest.raises(RuntimeError, match=text):
            torch.compile(layer, backend="aot_eager")(empty)
        with pytest.raises(RuntimeError, match=text):
            torch.compile(layer, fullgraph=True, backend="aot_eager")(empty)
        with pytest.raises(RuntimeError, match=text):
            torch.export.export(layer, (empty,))
    none = torch.randn(2, 0, 5), torch.zeros(2, dtype=torch.int64)  # lengths say that there are no steps
    compiled = torch.compile(lambda x, n: layer(x, lengths=n), fullgraph=True, backend="aot_eager")
    assert compiled(*none)[0].shape == layer(none[0], lengths=none[1])[0].shape == (2, 0, 6)


def test_an_input_whose_steps_are_a_value_compiles():
    layer = padless.nn.LSTM(5, 6, batch_first=True)

    def cut(x, lengths):
        steps = lengths.max().item()
        torch._check(steps >= 0)
        torch._check(steps <= x.shape[1])
        return layer(x[:, :steps])[0]

    compiled, x = torch.compile(cut, fullgraph=True, backend="aot_eager"), torch.randn(2, 7, 5)
    with torch._dynamo.config.patch(capture_scalar_outputs=True):
        for lengths in ([3, 4], [1, 7]):
            torch.testing.assert_close(compiled(x, torch.tensor(lengths)), cut(x, torch.tensor(lengths)))


def test_lists_of_lengths_have_the_errors_of_eager_mode():
    layer, packed = padless.nn.LSTM(5, 6, batch_first=True), padless.Packed
    compiled = torch.compile(
        lambda x, lengths: layer(x, lengths=lengths)[0], fullgraph=True, backend="aot_eager"
    )
    x = torch.randn(2, 4, 5)
    torch.testing.assert_close(compiled(x, [4.0, 2.0]), layer(x, lengths=[4, 2])[0])
    torch.testing.assert_close(compiled(x, numpy.array([4, 2])), layer(x, lengths=[4, 2])[0])
    torch.testing.assert_close(compiled(x, [torch.tensor(4), torch.tensor(2)]), layer(x, lengths=[4, 2])[0])
    with pytest.raises(padless.LengthsError, match=r"lengths\[0\] = 16777217 is longer"):
        compiled(x, [16777217.0, 2.0])
    with pytest.raises(padless.LengthsError, match=r"lengths\[1\] = 2.5 is not a whole number"):
        compiled(x, numpy.array([2, 2.5], numpy.float32))
    with pytest.raises(padless.LengthsError, match=r"lengths\[1\] = 2.5 is not a whole number"):
        torch.compile(packed, fullgraph=True, backend="aot_eager")(x[0], numpy.array([2, 2.5], numpy.float32))
    with pytest.raises(RuntimeError, match="lengths has 3 entries for a batch of 2"):
        compiled(x, [1, 2, 3])
    with pytest.raises(padless.LengthsError, match="lengths has 3 entries for a batch of 2"):
        torch.compile(layer, backend="aot_eager")(x, lengths=[1, 2, 3])
    with pytest.raises(padless.LengthsError, match="lengths has 3 entries for a batch of 2"):
        torch.export.export(layer, (x,), {"lengths": [1, 2, 3]})


def test_autocast_has_the_dtypes_of_eager_mode():
    layer = padless.nn.LSTM(5, 6, batch_first=True)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 4, 5)
    with torch.autocast("cpu", torch.bfloat16):
        expected, got = tree_leaves(layer(x)), tree_leaves(compiled(x))
    assert [value.dtype for value in got] == [value.dtype for value in expected]


@pytest.mark.parametrize("cell", CELLS)
def test_torchs_own_layers_break_the_graph_as_without_padless(cell):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), getattr(torch.nn, cell)(3, 4))
    compiled = torch.compile(model, backend="aot_eager")
    x = torch.randn(5, 2, 3)
    compiled(x)[0].sum().backward()
    torch.testing.assert_close(compiled(x)[0], model(x)[0])
    assert torch._dynamo.utils.counters["graph_break"]


def test_torchs_own_layers_are_traced_where_the_user_turned_that_on():
    program = (
        "import torch\n"
        "import torch._dynamo\n"
        "torch._dynamo.config.allow_rnn = True\n"
        "import padless.nn\n"
        "torch.compile(torch.nn.GRU(3, 4), fullgraph=True, backend='eager')(torch.randn(5, 2, 3))\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_dynamo_is_imported_by_whoever_compiles():
    program = (
        "import sys, torch, padless.nn\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "import torch._dynamo\n"
        "assert torch._dynamo.config.allow_rnn\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


# ---- Packed, ops and losses


def a_packed(batch, steps):
    lengths = lengths_up_to(steps, batch, shortest=1)
    return padless.Packed(torch.randn(sum(lengths), 3), lengths)


CONVOLUTION = padless.nn.Conv1d(3, 4, 3, dilation=2)


ON_PACKED = {
    "pad": lambda p: p.pad(),
    "pad left, to more steps": lambda p: p.pad(7.0, total_length=12, side="left"),
    "mask": lambda p: p.mask().float(),
    "to_packed_sequence": lambda p: p.to_packed_sequence().data,
    "to_nested": lambda p: 2 * p.to_nested().values(),
    "indexing": lambda p: p[[1, 0]].data,
    "map and arithmetic": lambda p: (p + p.map(torch.relu)).data,
    "sum": padless.ops.sum,
    "mean": padless.ops.mean,
    "prod": padless.ops.prod,
    "cumsum": lambda p: padless.ops.cumsum(p).data,
    "split": lambda p: padless.ops.cat(padless.ops.split(p, [2, 1, 20])[1:]).data,
    "max": padless.ops.max,
    "logsumexp": padless.ops.logsumexp,
    "softmax": lambda p: padless.ops.softmax(p).data,
    "log_softmax": lambda p: padless.ops.log_softmax(p).data,
    "reverse": lambda p: padless.ops.reverse(p).data,
    "shift": lambda p: padless.ops.shift(p, 1).data,
    "first": padless.ops.first,
    "last": padless.ops.last,
    "expand": lambda p: padless.ops.expand(p, padless.ops.sum(p)).data,
    "head": lambda p: padless.ops.head(p, 2).data,
    "cat": lambda p: padless.ops.cat([p, p]).data,
    "first or a default": lambda p: padless.ops.first(p, default=0.5),
    "arithmetic with a batch packed apart": lambda p: (p + padless.Packed(2 * p.data, p.lengths)).data,
    "from_offsets": lambda p: padless.ops.sum(padless.Packed.from_offsets(3 * p.data, p.offsets)),
    "Conv1d": lambda p: CONVOLUTION(p).data,
    "cross_entropy": lambda p: padless.losses.cross_entropy(p, p.map(lambda rows: rows.argmax(1))),
    "sequence_mean": lambda p: padless.losses.mse_loss(p, p.map(torch.zeros_like), reduction="sequence_mean"),
}


@pytest.mark.filterwarnings("ignore:.*is_fx_tracing will return true:UserWarning")
@pytest.mark.parametrize("name", ON_PACKED)
def test_operations_on_packed_compile_as_one_graph(name):
    run = ON_PACKED[name]
    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, steps in SIZES:
        found = []
        packed = a_packed(batch, steps)
        for function in (run, compiled):
            rows = packed.data.detach().clone().requires_grad_()
            value = function(padless.Packed(rows, packed.lengths))
            gradient = (
                torch.autograd.grad(value.square().sum(), rows)[0] if value.requires_grad else rows.detach()
            )
            found.append((value, gradient))
        for want, got in zip(*found, strict=True):
            torch.testing.assert_close(got, want)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda rows, numbers: padless.Packed(rows, numbers), "do not sum to the rows"),
        (lambda rows, numbers: padless.Packed.from_offsets(rows, numbers), "end at the rows"),
    ],
)
def test_rows_and_lengths_that_do_not_fit_are_an_error_when_the_program_runs(make, text):
    compiled = torch.compile(
        lambda rows, numbers: padless.ops.sum(make(rows, numbers)), fullgraph=True, backend="aot_eager"
    )
    numbers = torch.tensor([0, 2, 3])
    if text.startswith("do"):
        assert compiled(torch.ones(5), numbers).tolist() == [0, 2, 3]
    else:
        assert compiled(torch.ones(3), numbers).tolist() == [2, 1]
    with pytest.raises(RuntimeError, match=text):
        compiled(torch.ones(4), numbers)


def test_pack_compiles_and_refuses_lengths_that_do_not_fit():
    compiled = torch.compile(
        lambda x, lengths: padless.pack(x, lengths).data, fullgraph=True, dynamic=True, backend="aot_eager"
    )
    for batch, steps in SIZES[:5]:
        x, lengths = torch.randn(batch, steps, 3), torch.tensor(lengths_up_to(steps, batch))
        assert torch.equal(compiled(x, lengths), padless.pack(x, lengths).data)
    with pytest.raises(padless.LengthsError, match=r"lengths\[0\] = 9 is longer"):
        compiled(torch.randn(2, 4, 3), torch.tensor([9, 4]))


def test_split_refuses_longer_sequences_when_the_program_runs():
    compiled = torch.compile(
        lambda p: padless.ops.split(p, [2, 1])[0].data, fullgraph=True, dynamic=True, backend="aot_eager"
    )
    assert compiled(padless.Packed(torch.arange(5.0), [3, 2])).tolist() == [0, 1, 3, 4]
    with pytest.raises(RuntimeError, match="sizes sum to 3, and a sequence is longer"):
        compiled(padless.Packed(torch.arange(5.0), [1, 4]))


def test_a_compiled_product_has_exact_gradients_where_factors_are_0():
    compiled = torch.compile(padless.ops.prod, fullgraph=True, dynamic=True, backend="aot_eager")
    rows = torch.tensor([2.0, 0.0, 3.0, 0.0, 0.0, 5.0], requires_grad=True)
    compiled(padless.Packed(rows, [3, 2, 1])).sum().backward()
    assert rows.grad.tolist() == [0, 6, 0, 0, 0, 1]
