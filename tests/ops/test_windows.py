"""Windows of every sequence (`split`, `chunks`, `head`, `tail`): no sequence is lost, and one node cuts them all."""

from __future__ import annotations

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import padless
from padless import Packed, ops

# torch's own warning, when forward-mode derivatives are first used.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
LENGTHS = [[5, 1], [3, 3, 1], [2, 0], [1], [4, 2, 2, 1]]  # longest first: torch stores no indices


def rows_of(lengths):
    torch.manual_seed(0)
    return [torch.randn(n, 3, dtype=torch.float64) for n in lengths]


def without_indices(sequences):
    """The sequences as torch packs those that are sorted already; padless also takes those of length 0."""
    return padless.rnn.pack_sequence(sequences) if any(map(len, sequences)) else pack_sequence(sequences)


def unpacked(batch):
    return padless.rnn.unpack_sequence(batch) if isinstance(batch, PackedSequence) else batch.unpack()


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("k", [1, 2, 5])
def test_windows_of_a_packed_sequence_without_indices_keep_every_sequence(lengths, k):
    sequences = rows_of(lengths)
    batch = without_indices(sequences)
    windows = ops.chunks(batch, k)
    assert len(windows) == -(-max(lengths) // k)
    for at, window in enumerate(windows):
        got = unpacked(window)
        assert len(got) == len(sequences)
        for rows, sequence in zip(got, sequences, strict=True):
            assert torch.equal(rows, sequence[at * k : at * k + k])


def test_other_operations_on_a_packed_sequence_without_indices_keep_every_sequence():
    sequences = rows_of([5, 1])
    batch = pack_sequence(sequences)
    assert [len(unpacked(piece)) for piece in ops.split(batch, [2, 0, 3])] == [2, 2, 2]
    assert [len(rows) for rows in unpacked(ops.head(batch, 0))] == [0, 0]
    conv = padless.nn.Conv1d(3, 4, 3, padding="valid").double()
    assert [len(rows) for rows in unpacked(conv(batch))] == [3, 0]
    assert ops.head(batch, 1).sorted_indices is None  # nothing is lost without them


def test_windows_of_a_packed_sequence_without_indices_train_a_layer():
    lstm, hx = padless.nn.LSTM(3, 4).double(), None
    sequences = rows_of([5, 1])
    for window in ops.chunks(pack_sequence(sequences), 2):
        _, hx = lstm(window, hx)
        hx = tuple(state.detach() for state in hx)
    for i, sequence in enumerate(sequences):
        expected = torch.nn.LSTM.forward(lstm, sequence)[1]
        for got, alone in zip(hx, expected, strict=True):
            torch.testing.assert_close(got[:, i], alone)


@pytest.mark.parametrize("kind", ["Packed", "PackedSequence", "without indices"])
@pytest.mark.parametrize("cut", [lambda b: ops.chunks(b, 2), lambda b: ops.split(b, [1, 0, 4])])
def test_gradients_of_windows_are_those_of_slices(kind, cut):
    def run(data):
        packed = Packed(data, [5, 3, 3, 0])
        batch = packed if kind == "Packed" else packed.to_packed_sequence()
        if kind == "without indices":
            batch = pack_sequence(packed[:3].unpack())
        return [window.data for window in cut(batch)]

    data = torch.randn(11, 2, dtype=torch.float64, requires_grad=True)
    # torch's own packing has no forward-mode derivative.
    assert torch.autograd.gradcheck(run, data, check_forward_ad=kind != "without indices")
    assert torch.autograd.gradgradcheck(run, data)


def test_windows_may_be_differentiated_one_by_one():
    data = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
    for window in ops.chunks(Packed(data, [4, 2]), 1):
        (window.data**2).sum().backward()
    torch.testing.assert_close(data.grad, 2 * data.detach())


def test_windows_share_no_memory():
    data = torch.zeros(6, 2)
    windows = ops.chunks(Packed(data, [4, 2]), 2)
    windows[0].data.fill_(1)
    assert not windows[1].data.any() and not data.any()


def test_windows_of_vmapped_rows_are_those_of_each():
    data = torch.randn(3, 6, 2)

    def first_squares(rows):
        return torch.func.grad(lambda x: (ops.chunks(Packed(x, [4, 2]), 3)[0].data ** 2).sum())(rows)

    got = torch.func.vmap(first_squares)(data)
    expected = 2 * data
    expected[:, 3] = 0
    torch.testing.assert_close(got, expected)


def test_memory_of_windows_does_not_grow_with_their_number():
    saved = []

    def note(tensor):
        saved.append(tensor)
        return tensor

    data = torch.randn(1000, 1, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        windows = ops.chunks(Packed(data, [600, 400]), 10)
    assert len({window.data.grad_fn for window in windows}) == 1
    assert sum(tensor.numel() for tensor in saved) <= 2 * 1000
