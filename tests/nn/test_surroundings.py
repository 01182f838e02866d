"""Whatever was set around a call, or happens to its arguments afterwards: results stay what they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import padless
from padless import ops

LENGTHS = [2, 5, 0, 3]


def _batch() -> padless.Packed:
    torch.manual_seed(0)
    return padless.Packed(torch.randn(sum(LENGTHS), 3), LENGTHS)


def _states(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, count, 4), torch.randn(1, count, 4)


def _torchs_own(layer: padless.nn.LSTM) -> torch.nn.LSTM:
    own = torch.nn.LSTM(layer.input_size, layer.hidden_size)
    own.load_state_dict(layer.state_dict())
    return own


# ---- indices of a PackedSequence ---------------------------------------------------------------------


def _with_strided_indices() -> tuple[PackedSequence, PackedSequence]:
    """A `PackedSequence`, and the same whose indices are the columns of one matrix."""
    torch.manual_seed(0)
    plain = pack_sequence([torch.randn(n, 3) for n in (2, 5, 3, 4)], enforce_sorted=False)
    assert plain.sorted_indices is not None and plain.unsorted_indices is not None
    pair = torch.stack([plain.sorted_indices, plain.unsorted_indices], 1)
    return plain, PackedSequence(plain.data, plain.batch_sizes, pair[:, 0], pair[:, 1])


@pytest.mark.parametrize("way", ["PackedSequence", "Packed", "compiled"])
def test_indices_that_are_not_contiguous_name_the_same_sequences(way: str) -> None:
    plain, strided = _with_strided_indices()
    layer, (h, c) = padless.nn.LSTM(3, 4), _states(4)
    expected_leaf, leaf = h.clone().requires_grad_(), h.clone().requires_grad_()
    _, expected = _torchs_own(layer)(plain, (expected_leaf, c))
    run: Callable[..., Any] = torch.compile(layer, backend="eager") if way == "compiled" else layer
    _, found = run(padless.Packed.from_packed_sequence(strided) if way == "Packed" else strided, (leaf, c))
    (expected[0].square().sum() + expected[1].sum()).backward()
    (found[0].square().sum() + found[1].sum()).backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(leaf.grad, expected_leaf.grad)


def test_a_packed_does_not_follow_the_indices_that_it_was_made_of() -> None:
    sequence, _ = _with_strided_indices()
    layer, states = padless.nn.LSTM(3, 4), _states(4)
    expected = layer(sequence, states)[1]
    packed = padless.Packed.from_packed_sequence(sequence)
    for indices in (sequence.sorted_indices, sequence.unsorted_indices):
        assert indices is not None
        indices.copy_(torch.arange(4))
    torch.testing.assert_close(layer(packed, states)[1], expected)
    assert packed.to_packed_sequence().sorted_indices.tolist() == [1, 3, 2, 0]


# ---- another default device ---------------------------------------------------------------------------

_OPERATIONS: dict[str, Callable[[padless.Packed], Any]] = {
    "index": lambda b: (b[::-1], b[[0, 1]], b[[]], b[torch.tensor([1, 0], device="cpu")]),
    "pad": lambda b: (b.pad(), b.mask(), b.to_packed_sequence(), b.to_nested().values()),
    "reduce": lambda b: (ops.sum(b), ops.logsumexp(b), ops.softmax(b), ops.cumsum(b)),
    "ends": lambda b: (ops.first(b, default=0), ops.last(b, default=torch.zeros(3, device="cpu"))),
    "move": lambda b: (ops.shift(b, 1), ops.reverse(b), ops.cat([b, b]), *ops.split(b, 2)),
    "pack": lambda b: padless.pack(b.pad(), LENGTHS),
    "packed again": lambda b: padless.Packed.from_packed_sequence(b.to_packed_sequence()),
    "rnn": lambda b: padless.rnn.pad_packed_sequence(
        padless.rnn.pack_padded_sequence(b[:2].pad(), [2, 5], True, False)
    ),
}


def _tensors(found: Any) -> list[torch.Tensor]:
    return [t for t in torch.utils._pytree.tree_leaves(found) if isinstance(t, torch.Tensor)]


@pytest.mark.parametrize("name", _OPERATIONS)
def test_operations_ignore_the_default_device(name: str) -> None:
    batch, operation = _batch(), _OPERATIONS[name]
    expected = _tensors(operation(batch))
    assert expected
    with torch.device("meta"):
        found = _tensors(operation(padless.Packed(batch.data, LENGTHS)))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def _inputs() -> dict[str, tuple[Any, dict[str, Any]]]:
    batch = _batch()
    return {
        "Packed": (batch, {}),
        "PackedSequence": (batch.to_packed_sequence(), {}),
        "padded": (batch.pad(batch_first=False), {}),
        "lengths": (batch.pad(batch_first=False), {"lengths": LENGTHS}),
        "one step": (torch.randn(1, 4, 3), {}),
    }


@pytest.mark.parametrize("backend", [b for b in padless.backends.available() if b != "torch"])
@pytest.mark.parametrize("kind", _inputs())
def test_layers_ignore_the_default_device(kind: str, backend: str) -> None:
    given, options = _inputs()[kind]
    layer = padless.nn.LSTM(3, 4, num_layers=2, bidirectional=True)

    def everything() -> list[torch.Tensor]:
        layer.zero_grad()
        output, states = layer(given, **options)
        rows = output if isinstance(output, torch.Tensor) else output.data
        rows.square().sum().backward()
        with torch.no_grad():
            inferred = layer(given, **options)[1]
        return [rows.detach(), *states, *inferred, *(p.grad.clone() for p in layer.parameters())]

    with padless.backends.use(backend):
        expected = everything()
        with torch.device("meta"):
            found = everything()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_a_convolution_and_a_crf_ignore_the_default_device() -> None:
    batch, convolution, crf = _batch(), padless.nn.Conv1d(3, 3, 3), padless.nn.CRF(3)
    expected = convolution(batch).data, crf.decode(batch).data
    with torch.device("meta"):
        found = convolution(batch).data, crf.decode(batch).data
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


# ---- inference mode -----------------------------------------------------------------------------------


def test_a_batch_that_was_used_in_inference_mode_can_be_trained_on() -> None:
    batch, fresh = _batch(), _batch()
    layers = [padless.nn.LayerNormGRU(3, 4), padless.nn.LSTM(3, 4)]

    def gradients(of: padless.Packed) -> list[torch.Tensor]:
        leaf = of.data.clone().requires_grad_()
        rows = of.map(lambda _: leaf)
        total = (
            ops.sum(rows).sum()
            + (ops.logsumexp(rows).clamp(min=0) ** 2).sum()
            + ops.softmax(rows).data.square().sum()
        )
        for layer in layers:
            total = total + layer(rows)[0].data.square().sum()
        total = total + rows.pad().square().sum() + rows.to_packed_sequence().data.square().sum()
        return list(torch.autograd.grad(total, [leaf, *layers[0].parameters()]))

    with torch.inference_mode():
        for layer in layers:
            layer(batch)
        for use in (
            ops.sum,
            ops.logsumexp,
            ops.softmax,
            padless.Packed.pad,
            padless.Packed.to_packed_sequence,
        ):
            use(batch)
    for one, other in zip(gradients(batch), gradients(fresh), strict=True):
        assert torch.equal(one, other)


def test_marginals_are_the_same_in_inference_mode() -> None:
    batch, crf = _batch(), padless.nn.CRF(3)
    expected = crf.marginals(batch).data
    with torch.inference_mode():
        assert torch.equal(crf.marginals(batch).data, expected)
        assert torch.equal(crf.marginals(batch * 1).data, expected)


# ---- more ---------------------------------------------------------------------------------------------


def test_a_graph_of_the_gradient_has_zeros_where_nothing_has_rows() -> None:
    layer = padless.nn.LSTM(3, 4)
    h0 = torch.zeros(1, 2, 4, requires_grad=True)
    output, (h, _) = layer(padless.Packed(torch.zeros(0, 3), [0, 0]), (h0, torch.zeros(1, 2, 4)))
    total = output.data.sum() + h.sum()
    for create_graph in (True, False):
        (found,) = torch.autograd.grad(
            total, [layer.weight_hh_l0], create_graph=create_graph, retain_graph=True
        )
        assert torch.equal(found, torch.zeros(16, 4))


def test_more_threads_than_any_machine_has_are_as_many_as_one_call_takes() -> None:
    layer, x, before = padless.nn.LSTM(128, 128), torch.randn(20, 16, 128), torch.get_num_threads()
    with torch.no_grad():
        expected = layer(x)[0]
        try:
            torch.set_num_threads(2000)
            assert torch.equal(layer(x)[0], expected)
        finally:
            torch.set_num_threads(before)


@pytest.mark.parametrize("what", ["input", "state"])
def test_a_single_step_of_sparse_numbers_is_refused_by_name(what: str) -> None:
    layer, x, states = (
        padless.nn.LSTM(3, 4),
        torch.zeros(1, 2, 3),
        (torch.zeros(1, 2, 4), torch.zeros(1, 2, 4)),
    )
    if what == "input":
        x = x.to_sparse()
    else:
        states = (states[0].to_sparse(), states[1])
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"(input|hidden\[0\]) must be a dense tensor"):
        layer(x, states)
