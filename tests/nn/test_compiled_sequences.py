"""Operations on `PackedSequence`s and packed batches in compiled and exported programs, against each sequence alone."""

from __future__ import annotations

import pytest
import torch
from torch.export import Dim
from torch.nn import functional

import padless
from padless import losses, ops
from padless.rnn import pack_padded_sequence, pack_sequence, pad_packed_sequence

# torch warns of its own code while it compiles, and of the tensors that it passes on where a graph breaks.
pytestmark = pytest.mark.filterwarnings(
    "ignore::DeprecationWarning", "ignore::FutureWarning", "ignore:.*.grad attribute of a Tensor:UserWarning"
)
LENGTHS = ([9, 3, 1, 5, 7], [5, 2], [6, 5, 4], [2, 8, 8, 1])


@pytest.fixture(autouse=True)
def _fresh_dynamo():
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def packed(x, lengths):
    return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)


def rows_of(sequence):
    """The rows of a PackedSequence in a padded batch, where they can be compared."""
    return pad_packed_sequence(sequence, batch_first=True)[0]


CONVOLUTION = padless.nn.Conv1d(3, 4, 3, dtype=torch.float64)
DROPOUT = padless.nn.LockedDropout(0.5).eval()


def shifted(rows):
    return torch.cat([torch.zeros_like(rows[:1]), rows[:-1]])


def convolved(rows):
    return functional.conv1d(rows.t()[None], CONVOLUTION.weight, CONVOLUTION.bias, padding=1)[0].t()


# What is compiled, of a PackedSequence, and the same for the rows of one sequence.
ON_SEQUENCE = {
    "sum": (ops.sum, lambda rows: rows.sum(0)),
    "mean": (ops.mean, lambda rows: rows.mean(0)),
    "max": (ops.max, lambda rows: rows.amax(0)),
    "last": (ops.last, lambda rows: rows[-1]),
    "softmax": (lambda p: rows_of(ops.softmax(p)), lambda rows: rows.softmax(0)),
    "shift": (lambda p: rows_of(ops.shift(p, 1)), shifted),
    "cat": (lambda p: rows_of(ops.cat([p, p])), lambda rows: torch.cat([rows, rows])),
    "cumsum": (lambda p: rows_of(ops.cumsum(p)), lambda rows: rows.cumsum(0)),
    "from_packed_sequence": (lambda p: padless.Packed.from_packed_sequence(p).pad(), lambda rows: rows),
    "to_packed_sequence": (
        lambda p: rows_of(padless.Packed.from_packed_sequence(p).to_packed_sequence()),
        lambda rows: rows,
    ),
    "Conv1d": (lambda p: rows_of(CONVOLUTION(p)), convolved),
    "LockedDropout": (lambda p: rows_of(DROPOUT(p)), lambda rows: rows),
}


def assert_alone(found, x, lengths, alone):
    """Compare `found`, of a whole batch, with `alone` of the rows of each sequence, and all gradients."""
    expected = torch.nn.utils.rnn.pad_sequence(
        [alone(x[i, :length]) for i, length in enumerate(lengths)], batch_first=True
    )
    weights = torch.randn_like(expected)
    torch.testing.assert_close(found, expected)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), x)
    torch.testing.assert_close(torch.autograd.grad((found * weights).sum(), x), (wanted,))


@pytest.mark.filterwarnings("ignore:.*is_fx_tracing will return true:UserWarning")
@pytest.mark.parametrize("fullgraph", [True, False], ids=["fullgraph", "with breaks"])
@pytest.mark.parametrize("name", ON_SEQUENCE)
def test_operations_on_a_packed_sequence_packed_inside_compile(name, fullgraph):
    run, alone = ON_SEQUENCE[name]
    compiled = torch.compile(
        lambda x, lengths: run(packed(x, lengths)), fullgraph=fullgraph, dynamic=True, backend="aot_eager"
    )
    for lengths in LENGTHS:
        x = torch.randn(len(lengths), 9, 3, dtype=torch.float64, requires_grad=True)
        assert_alone(compiled(x, torch.tensor(lengths)), x, lengths, alone)
    if fullgraph:
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3


LOSSES = {
    "mean": lambda x, y, lengths: losses.cross_entropy(packed(x, lengths), packed(y, lengths)),
    "of packed batches": lambda x, y, n: losses.cross_entropy(padless.pack(x, n), padless.pack(y, n)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_batches_packed_inside_compiles_as_one_graph(name):
    compiled = torch.compile(LOSSES[name], fullgraph=True, dynamic=True, backend="aot_eager")
    for lengths in LENGTHS:
        x = torch.randn(len(lengths), 9, 3, dtype=torch.float64)
        y = torch.randint(0, 3, (len(lengths), 9))
        rows = [torch.cat([each[i, :n] for i, n in enumerate(lengths)]) for each in (x, y)]
        torch.testing.assert_close(
            compiled(x, y, torch.tensor(lengths)), functional.cross_entropy(rows[0], rows[1])
        )


def test_losses_of_different_lengths_are_an_error_when_the_program_runs():
    compiled = torch.compile(
        lambda x, a, b: losses.mse_loss(packed(x, a), packed(x, b)), fullgraph=True, backend="aot_eager"
    )
    x, lengths = torch.randn(3, 4, 2), torch.tensor([4, 2, 3])
    assert compiled(x, lengths, lengths) == 0
    for other in ([4, 3, 2], [4, 2, 2], [3, 3, 3]):
        with pytest.raises(RuntimeError, match=r"different lengths or order|Runtime assertion failed|Eq\("):
            compiled(x, lengths, torch.tensor(other))


@pytest.mark.parametrize("enforce_sorted", [True, False])
def test_a_packed_sequence_may_be_an_argument_of_a_compiled_function(enforce_sorted):
    def run(sequence):
        dropped = padless.nn.LockedDropout(0.5)(sequence)
        return ops.sum(sequence), padless.Packed.from_packed_sequence(sequence).pad(), dropped.data

    compiled = torch.compile(run, fullgraph=True, dynamic=True, backend="aot_eager")
    for lengths in ([5, 3, 3], [7, 6, 1], [4, 2, 2, 1]):
        sequences = [torch.randn(length, 3, dtype=torch.float64) for length in lengths]
        if not enforce_sorted:
            sequences.reverse()
        sums, padded, dropped = compiled(pack_sequence(sequences, enforce_sorted=enforce_sorted))
        torch.testing.assert_close(sums, torch.stack([rows.sum(0) for rows in sequences]))
        assert torch.equal(padded, torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True))
        rows = pack_sequence(sequences, enforce_sorted=enforce_sorted).data
        assert torch.equal(dropped.where(dropped != 0, 2 * rows), 2 * rows)
    forged = torch.nn.utils.rnn.PackedSequence(torch.randn(5, 3), torch.tensor([2, 3]))
    with pytest.raises(padless.LayoutError, match="must be non-increasing"):
        torch.compile(ops.sum, fullgraph=True, backend="aot_eager")(forged)


class Pooled(torch.nn.Module):
    """A model that reads a padded batch in one of several ways."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.rnn = padless.nn.GRU(3, 4, batch_first=True, dtype=torch.float64)

    def forward(self, x, lengths):
        if self.kind == "lengths":
            return self.rnn(x, lengths=lengths)[1][0]
        if self.kind == "pack":
            return self.rnn(padless.pack(x, lengths))[1][0]
        if self.kind == "last of pack":
            return ops.last(self.rnn(padless.pack(x, lengths))[0])
        return ops.last(self.rnn(packed(x, lengths))[0])


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("kind", ["lengths", "pack", "last of pack", "last of rnn.pack"])
def test_a_model_that_packs_is_exported(kind, strict):
    model = Pooled(kind).eval()
    sizes = ({0: Dim.AUTO, 1: Dim.AUTO}, {0: Dim.AUTO})
    given = torch.randn(5, 9, 3, dtype=torch.float64), torch.tensor([9, 3, 1, 5, 7])
    program = torch.export.export(model, given, dynamic_shapes=sizes, strict=strict).module()
    alone = torch.nn.GRU(3, 4, batch_first=True, dtype=torch.float64)
    alone.load_state_dict(model.rnn.state_dict())
    for lengths in LENGTHS:
        x = torch.randn(len(lengths), 11, 3, dtype=torch.float64)
        for i, state in enumerate(program(x, torch.tensor(lengths))):
            torch.testing.assert_close(state, alone(x[i, : lengths[i]])[1][0])
