"""Every layer option and every length, against the oracle and against torch, with every gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_sequence

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
    oracle_answer,
    padded,
    tolerance,
    twins,
)

pytestmark = [
    pytest.mark.usefixtures("backend"),
    # torch says so itself, of its own padded path.
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]

RAGGED = (3, 1, 6, 6, 2)
each_cell = pytest.mark.parametrize("name", CELLS)


def make(name: str, lengths: Any = RAGGED, *, dtype: Any = torch.float64, **settings: Any) -> Problem:
    cell, options = CELLS[name]
    with_state = settings.pop("with_state", True)
    seed = settings.pop("seed", 0)
    return Problem(cell, lengths, options | settings, with_state=with_state, dtype=dtype, seed=seed)


@each_cell
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
def test_packed_layer_is_torchs_and_the_oracles(
    name: str, num_layers: int, bidirectional: bool, bias: bool, with_state: bool
) -> None:
    problem = make(
        name,
        num_layers=num_layers,
        bidirectional=bidirectional,
        bias=bias,
        with_state=with_state,
    )
    ours, theirs = problem.twins()
    actual = answer(ours, problem, KINDS["packed_sequence"])
    assert_same(actual, answer(theirs, problem, KINDS["packed_sequence"]), problem)
    assert_same(actual, oracle_answer(ours, problem), problem)


@each_cell
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_padded_layer_is_torchs_and_the_oracles(name: str, batch_first: bool, bidirectional: bool) -> None:
    problem = make(name, (4, 4, 4), batch_first=batch_first, bidirectional=bidirectional, num_layers=2)
    ours, theirs = problem.twins()

    def call(layer: Any, sequences: Any, hx: Any) -> Any:
        return layer(padded(sequences, batch_first=batch_first), hx)

    actual = answer(ours, problem, call)
    assert_same(actual, answer(theirs, problem, call), problem)
    assert_same(actual, oracle_answer(ours, problem), problem)


@each_cell
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("with_state", [False, True])
def test_unbatched_layer_is_torchs(name: str, batch_first: bool, with_state: bool) -> None:
    problem = make(name, (5,), batch_first=batch_first, bidirectional=True, with_state=with_state)
    ours, theirs = problem.twins()

    def call(layer: Any, sequences: Any, hx: Any) -> Any:
        if hx is not None:
            hx = tuple(s[:, 0] for s in hx) if isinstance(hx, tuple) else hx[:, 0]
        output, last = layer(sequences[0], hx)
        assert output.dim() == 2
        return output.unsqueeze(0 if batch_first else 1), last

    actual = answer(ours, problem, call)
    assert_same(actual, answer(theirs, problem, call), problem)


@each_cell
@pytest.mark.parametrize("kind", KINDS)
def test_float32_is_within_the_derived_tolerance(name: str, kind: str) -> None:
    problem = make(name, (9, 1, 30, 4), dtype=torch.float32, num_layers=2, bidirectional=True)
    ours, _ = problem.twins()
    assert_same(answer(ours, problem, KINDS[kind]), oracle_answer(ours, problem), problem)


@each_cell
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("packed", [True, False])
def test_half_precision_is_no_less_exact_than_torch(name: str, dtype: torch.dtype, packed: bool) -> None:
    """64 * eps is no test at 8 bits of mantissa, so torch's own error is the measure."""
    problem = make(name, (4, 3, 1) if packed else (4, 4, 4), dtype=dtype, bidirectional=True)
    ours, theirs = problem.twins()

    def call(layer: Any, sequences: Any, hx: Any) -> Any:
        return layer(by_hand(sequences) if packed else torch.stack(sequences, 1), hx)

    right = oracle_answer(ours, problem)
    actual, torchs = answer(ours, problem, call), answer(theirs, problem, call)
    for key, expected in right.items():
        assert actual[key].dtype == torchs[key].dtype == dtype, key
        error = float((actual[key].double() - expected).abs().max())
        torch_error = float((torchs[key].double() - expected).abs().max())
        scale = max(1.0, float(expected.abs().max()))
        allowed = 2 * torch_error + 2 * torch.finfo(dtype).eps * scale
        assert error <= allowed, f"{key}: off by {error:.3g}, torch by {torch_error:.3g}"


@pytest.mark.parametrize("name", [c for c in CELLS if c != "rnn_relu"])
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("packed", [True, False])
def test_complex_numbers_are_torchs(name: str, dtype: torch.dtype, packed: bool) -> None:
    problem = make(name, (4, 3, 1) if packed else (4, 4, 4), dtype=dtype, num_layers=2)
    ours, theirs = problem.twins()

    def call(layer: Any, sequences: Any, hx: Any) -> Any:
        return layer(by_hand(sequences) if packed else torch.stack(sequences, 1), hx)

    actual = answer(ours, problem, call)
    assert_same(actual, answer(theirs, problem, call), problem)
    assert_same(actual, oracle_answer(ours, problem), problem)


@each_cell
def test_meta_tensors_give_shapes_dtypes_and_gradients(name: str) -> None:
    cell, options = CELLS[name]
    lengths = torch.tensor([3, 2])
    ours, theirs = twins(cell, 5, 4, bidirectional=True, device="meta", **options)
    data = torch.empty(5, 5, device="meta", requires_grad=True)
    packed = torch.nn.utils.rnn.PackedSequence(data, torch.tensor([2, 2, 1]))
    for given_input in (packed, torch.empty(3, 2, 5, device="meta", requires_grad=True)):
        found = [_flat(layer(given_input)) for layer in (ours, theirs)]
        assert [(t.shape, t.dtype, t.device) for t in found[0]] == [
            (t.shape, t.dtype, t.device) for t in found[1]
        ]
        found[0][0].sum().backward()
        assert all(p.grad is not None and p.grad.is_meta for p in ours.parameters())
    output, _ = ours(torch.empty(3, 2, 5, device="meta"), lengths=lengths)
    assert output.is_meta and output.shape[:2] == (3, 2)


def _flat(result: Any) -> list[torch.Tensor]:
    output, state = result
    output = output.data if isinstance(output, torch.nn.utils.rnn.PackedSequence) else output
    return [output, *(state if isinstance(state, tuple) else (state,))]


@each_cell
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("lengths", [(3, 0, 5, 0, 1), (0,), (0, 0, 0)], ids=str)
def test_zero_lengths_are_the_oracles(name: str, kind: str, lengths: tuple[int, ...]) -> None:
    problem = make(name, lengths, num_layers=2, bidirectional=True)
    ours, _ = problem.twins()
    assert_same(answer(ours, problem, KINDS[kind]), oracle_answer(ours, problem), problem)


@each_cell
@pytest.mark.parametrize("kind", KINDS)
def test_zero_length_sequence_keeps_its_initial_state(name: str, kind: str) -> None:
    problem = make(name, (3, 0, 5), num_layers=2, bidirectional=True)
    ours, _ = problem.twins()
    assert problem.state is not None
    result = answer(ours, problem, KINDS[kind])
    for last, initial in zip(("h_n", "c_n"), problem.state, strict=False):
        assert torch.equal(result[last][:, 1], initial[:, 1])


@each_cell
@pytest.mark.parametrize("kind", ["packed", "packed_sequence", "nested"])
def test_empty_batch_gives_empty_results(name: str, kind: str) -> None:
    cell, options = CELLS[name]
    ours, _ = twins(cell, 5, 4, num_layers=2, **options)
    data = torch.empty(0, 5)
    given_input: Any
    if kind == "packed":
        given_input = padless.Packed.from_offsets(data, [0])
    elif kind == "nested":
        given_input = torch.nested.nested_tensor_from_jagged(data, torch.tensor([0]))
    else:
        none = torch.empty(0, dtype=torch.int64)
        given_input = torch.nn.utils.rnn.PackedSequence(data, none, none, none)
    output, state = ours(given_input)
    assert type(output) is type(given_input)
    data = output.values() if kind == "nested" else output.data
    assert data.shape == (0, own_width(options))
    for s in state if isinstance(state, tuple) else (state,):
        assert s.shape[:2] == (2, 0)


def own_width(options: dict[str, Any]) -> int:
    return options.get("proj_size", 4)


@each_cell
@pytest.mark.parametrize("batch_first", [False, True])
def test_padded_empty_batch_is_torchs(name: str, batch_first: bool) -> None:
    cell, options = CELLS[name]
    ours, theirs = twins(cell, 5, 4, num_layers=2, batch_first=batch_first, **options)
    data = torch.empty((0, 3, 5) if batch_first else (3, 0, 5))
    for a, b in zip(_flat(ours(data)), _flat(theirs(data)), strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
    output, _ = ours(data, lengths=[])
    assert output.shape == _flat(theirs(data))[0].shape


@each_cell
@pytest.mark.parametrize("kind", KINDS)
def test_one_giant_among_short_ones_is_the_oracles(name: str, kind: str) -> None:
    problem = make(name, (1, 2, 70, 1), bidirectional=True)
    ours, _ = problem.twins()
    assert_same(answer(ours, problem, KINDS[kind]), oracle_answer(ours, problem), problem)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=layer_options(), lengths=ragged_lengths(min_batch=1), kind=st.sampled_from(list(KINDS)))
def test_any_layer_on_any_lengths_is_the_oracles(
    drawn: dict[str, Any], lengths: list[int], kind: str
) -> None:
    problem = Problem(lengths=lengths, **drawn)
    ours, _ = problem.twins()
    assert_same(answer(ours, problem, KINDS[kind]), oracle_answer(ours, problem), problem)


@each_cell
def test_wide_layers_are_the_oracles_where_widths_are_no_round_numbers(name: str) -> None:
    cell, options = CELLS[name]
    for hidden_size in (17, 33):
        problem = Problem(
            cell, (7, 3, 5), options, input_size=19, hidden_size=hidden_size, dtype=torch.float32
        )
        ours, _ = problem.twins()
        actual = answer(ours, problem, KINDS["packed_sequence"])
        assert_same(actual, oracle_answer(ours, problem), problem)


def test_hand_made_packed_sequence_is_what_torch_packs() -> None:
    """The kit's own layout, on which these tests stand, is torch's."""
    sequences = [torch.randn(n, 2) for n in (2, 5, 1, 4)]
    ours, theirs = by_hand(sequences), pack_sequence(sequences, enforce_sorted=False)
    for a, b in zip(ours, theirs, strict=True):
        assert a is not None and b is not None
        assert torch.equal(a, b)


def test_tolerance_is_64_eps_sqrt_of_width_and_steps_times_scale() -> None:
    assert tolerance(torch.float64, width=12, steps=4, scale=0.5) == 64 * 2.0**-52 * 4 * 0.5
