"""Every kind of input gives the same, in its own kind; sequences never mind company, order or padding."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import padless

from ..strategies import layer_options
from ..strategies import lengths as ragged_lengths
from .layer_kit import (
    CELLS,
    KINDS,
    Problem,
    answer,
    assert_same,
    by_hand,
    nested,
    output_rows,
    padded,
    twins,
)

pytestmark = pytest.mark.usefixtures("backend")
each_cell = pytest.mark.parametrize("name", CELLS)


def make(name: str, lengths: Any, **options: Any) -> Problem:
    cell, own = CELLS[name]
    return Problem(cell, lengths, {"num_layers": 2, "bidirectional": True, **own, **options})


@each_cell
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "packed_sequence"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [(2, 5, 1, 5), (3, 0, 4)], ids=str)
def test_every_kind_of_input_gives_the_same(
    name: str, kind: str, batch_first: bool, lengths: tuple[int, ...]
) -> None:
    problem = make(name, lengths, batch_first=batch_first)
    ours, _ = problem.twins()
    expected = answer(ours, problem, KINDS["packed_sequence"])
    assert_same(answer(ours, problem, KINDS[kind]), expected, problem)


@each_cell
def test_packed_sequence_of_two_fields_is_taken_as_sorted(name: str) -> None:
    problem = make(name, (5, 5, 3, 1))
    ours, theirs = problem.twins()

    def call(layer: Any, sequences: Any, hx: Any) -> Any:
        output, last = layer(by_hand(sequences, fields=2), hx)
        assert output.sorted_indices is None and output.unsorted_indices is None
        return output, last

    actual = answer(ours, problem, call)
    assert_same(actual, answer(ours, problem, KINDS["packed"]), problem)
    assert_same(actual, answer(theirs, problem, call), problem)


def test_packed_sequence_comes_back_with_its_own_indices() -> None:
    ours, _ = twins("LSTM", 3, 4)
    given_input = pack_sequence([torch.randn(n, 3) for n in (2, 4, 1)], enforce_sorted=False)
    output, _ = ours(given_input)
    assert type(output) is PackedSequence
    for ours_field, theirs_field in zip(output[1:], given_input[1:], strict=True):
        assert ours_field is not None and theirs_field is not None
        assert torch.equal(ours_field, theirs_field)


def test_packed_comes_back_with_its_own_lengths() -> None:
    ours, _ = twins("GRU", 3, 4)
    given_input = padless.pack([torch.randn(n, 3) for n in (2, 0, 4)])
    output, _ = ours(given_input)
    assert type(output) is padless.Packed
    assert torch.equal(output.lengths, given_input.lengths)
    assert output.data.shape == (6, 4)


def test_nested_comes_back_nested_and_goes_with_its_input() -> None:
    """Two nested tensors can be added only where torch knows their ragged shapes for the same."""
    ours, _ = twins("LSTM", 4, 4)
    given_input = nested([torch.randn(n, 4) for n in (2, 0, 4)])
    output, _ = ours(given_input)
    assert output.is_nested and output.layout == torch.jagged
    residual = output + given_input
    torch.testing.assert_close(residual.values(), output.values() + given_input.values())


@pytest.mark.parametrize("batch_first", [False, True])
def test_padded_comes_back_with_its_own_shape(batch_first: bool) -> None:
    """Also where the padding is longer than the longest sequence."""
    ours, _ = twins("LSTM", 3, 4, batch_first=batch_first)
    data = torch.randn((2, 7, 3) if batch_first else (7, 2, 3))
    output, _ = ours(data, lengths=[2, 4])
    assert output.shape == ((2, 7, 4) if batch_first else (7, 2, 4))


@pytest.mark.parametrize(
    "lengths",
    [
        [3, 0, 5],
        (3, 0, 5),
        np.array([3, 0, 5]),
        np.array([3, 0, 5], dtype=np.uint8),
        torch.tensor([3, 0, 5]),
        torch.tensor([3, 0, 5], dtype=torch.int32),
        torch.tensor([3.0, 0.0, 5.0]),
    ],
    ids=["list", "tuple", "numpy", "numpy uint8", "tensor", "int32", "whole floats"],
)
def test_lengths_of_any_kind_mean_the_same(lengths: Any) -> None:
    ours, _ = twins("LSTM", 3, 4)
    data = torch.randn(5, 3, 3)
    output, (h_n, c_n) = ours(data, lengths=lengths)
    expected, state = ours(padless.pack([data[:3, 0], data[:0, 1], data[:, 2]]))
    for b, rows in enumerate(output_rows(expected, (3, 0, 5))):
        torch.testing.assert_close(output[: len(rows), b], rows)
    torch.testing.assert_close((h_n, c_n), state)


@each_cell
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("garbage", [math.nan, math.inf, -math.inf, 1e30])
def test_garbage_in_the_padding_never_reaches_a_result_or_a_gradient(
    name: str, batch_first: bool, garbage: float
) -> None:
    problem = make(name, (2, 5, 0, 3), batch_first=batch_first)
    ours, _ = problem.twins()
    results = []
    for value in (0.0, garbage):
        data = padded(problem.sequences, batch_first=batch_first, value=value).requires_grad_()
        output, last = ours(data, lengths=problem.lengths)
        loss = output.square().sum() + sum(s.sum() for s in (last if isinstance(last, tuple) else (last,)))
        grads = torch.autograd.grad(loss, [data, *ours.parameters()])
        results.append([output.detach(), loss.detach(), *grads])
    for clean, dirty in zip(*results, strict=True):
        assert torch.equal(clean, dirty)
        assert bool(dirty.isfinite().all())


@each_cell
@pytest.mark.parametrize("batch_first", [False, True])
def test_output_past_a_length_is_exactly_zero_and_passes_no_gradient(name: str, batch_first: bool) -> None:
    problem = make(name, (2, 5, 0, 3), batch_first=batch_first)
    ours, _ = problem.twins()
    data = padded(problem.sequences, batch_first=batch_first, value=math.nan).requires_grad_()
    output, _ = ours(data, lengths=problem.lengths)
    # A gradient of NaN on padding cells must go nowhere.
    past = torch.arange(5) >= torch.tensor(problem.lengths).unsqueeze(1)
    past = past if batch_first else past.t()
    assert bool((output[past] == 0).all())
    cotangent = torch.ones_like(output).masked_fill(past.unsqueeze(2), math.nan)
    output.backward(cotangent)
    assert data.grad is not None
    assert bool((data.grad[past] == 0).all())
    for tensor in (data.grad, *(p.grad for p in ours.parameters())):
        assert tensor is not None and bool(tensor.isfinite().all())


def test_lengths_are_worth_packing_by_hand_as_torch_users_do() -> None:
    """`layer(x, lengths=n)` is pack, run, unpack in one."""
    ours, theirs = twins("LSTM", 3, 4, bidirectional=True, batch_first=True)
    data, lengths = torch.randn(4, 6, 3), torch.tensor([6, 2, 5, 1])
    output, state = ours(data, lengths=lengths)
    packed = pack_padded_sequence(data, lengths, batch_first=True, enforce_sorted=False)
    expected, expected_state = theirs(packed)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(expected, batch_first=True)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(state, expected_state)


def _run(layer: Any, kind: str, sequences: list[Tensor], hx: Any) -> tuple[list[Tensor], Any]:
    output, state = KINDS[kind](layer, sequences, hx)
    lengths = [len(s) for s in sequences]
    states = state if isinstance(state, tuple) else (state,)
    return output_rows(output, lengths, batch_first=layer.batch_first), states


def _pick(problem: Problem, index: list[int], *, mode: str) -> tuple[list[Tensor], Any]:
    """Some of the problem's sequences, in this order, and their states as `hx`."""
    sequences = [problem.sequences[b] for b in index]
    if problem.state is None:
        return sequences, None
    states = tuple(s[:, index] for s in problem.state)
    return sequences, states if mode == "LSTM" else states[0]


PROPERTY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@PROPERTY
@given(drawn=layer_options(), lengths=ragged_lengths(min_batch=1), kind=st.sampled_from(list(KINDS)))
def test_a_sequence_alone_is_the_sequence_in_company(
    drawn: dict[str, Any], lengths: list[int], kind: str
) -> None:
    problem = Problem(lengths=lengths, **drawn)
    ours, _ = problem.twins()
    outputs, states = _run(ours, kind, *_pick(problem, list(range(len(lengths))), mode=ours.mode))
    for b in range(len(lengths)):
        alone, alone_states = _run(ours, kind, *_pick(problem, [b], mode=ours.mode))
        torch.testing.assert_close(alone[0], outputs[b])
        for one, many in zip(alone_states, states, strict=True):
            torch.testing.assert_close(one[:, 0], many[:, b])


@PROPERTY
@given(data=st.data(), drawn=layer_options(), kind=st.sampled_from(list(KINDS)))
def test_a_permutation_of_the_batch_permutes_the_results(
    data: st.DataObject, drawn: dict[str, Any], kind: str
) -> None:
    lengths = data.draw(ragged_lengths(min_batch=1))
    shuffled = data.draw(st.permutations(range(len(lengths))))
    problem = Problem(lengths=lengths, **drawn)
    ours, _ = problem.twins()
    outputs, states = _run(ours, kind, *_pick(problem, list(range(len(lengths))), mode=ours.mode))
    moved, moved_states = _run(ours, kind, *_pick(problem, shuffled, mode=ours.mode))
    for place, b in enumerate(shuffled):
        torch.testing.assert_close(moved[place], outputs[b])
        for one, other in zip(moved_states, states, strict=True):
            torch.testing.assert_close(one[:, place], other[:, b])


@PROPERTY
@given(data=st.data(), drawn=layer_options(), kind=st.sampled_from(list(KINDS)))
def test_two_runs_with_the_state_handed_on_are_one_run(
    data: st.DataObject, drawn: dict[str, Any], kind: str
) -> None:
    drawn["options"]["bidirectional"] = False
    lengths = data.draw(ragged_lengths(min_batch=1))
    cuts = [data.draw(st.integers(0, n)) for n in lengths]
    problem = Problem(lengths=lengths, **drawn)
    ours, _ = problem.twins()
    sequences, hx = _pick(problem, list(range(len(lengths))), mode=ours.mode)
    outputs, states = _run(ours, kind, sequences, hx)
    first, between = _run(ours, kind, [s[:n] for s, n in zip(sequences, cuts, strict=True)], hx)
    between = between if ours.mode == "LSTM" else between[0]
    rest = [s[n:] for s, n in zip(sequences, cuts, strict=True)]
    second, last = _run(ours, kind, rest, between)
    for whole, head, tail in zip(outputs, first, second, strict=True):
        torch.testing.assert_close(torch.cat([head, tail]), whole)
    torch.testing.assert_close(last, states)


def test_lengths_for_steps_point_to_batch_first() -> None:
    with pytest.raises(padless.LengthsError, match="3 entries for a batch of 5; is batch_first wrong"):
        padless.nn.LSTM(2, 3)(torch.zeros(3, 5, 2), lengths=[5, 4, 1])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("grad", [True, False])
def test_a_nested_tensor_that_is_not_jagged_is_refused_by_name(grad: bool) -> None:
    with torch.set_grad_enabled(grad), pytest.raises(TypeError, match=r"must have layout=torch\.jagged"):
        padless.nn.LSTM(3, 4)(torch.nested.nested_tensor([torch.zeros(2, 3), torch.zeros(1, 3)]))
