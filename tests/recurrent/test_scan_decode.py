"""Any cell over time, and decoding: each sequence alone is the oracle."""

from __future__ import annotations

import numpy
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

import padless
from padless import Packed, decode, scan

each_kind = pytest.mark.parametrize("kind", ["Packed", "PackedSequence"])
each_direction = pytest.mark.parametrize("reverse", [False, True])
LENGTHS = [[3, 1, 5, 2], [0, 4, 0, 1], [2, 2, 2], [1], [0, 0], []]


def batch_of(sequences, kind):
    data = torch.cat(sequences) if sequences else torch.zeros(0, 3, dtype=torch.float64)
    packed = Packed(data, [len(s) for s in sequences])
    return packed.to_packed_sequence() if kind == "PackedSequence" else packed


def unpacked(batch):
    return (Packed.from_packed_sequence(batch) if isinstance(batch, PackedSequence) else batch).unpack()


@each_kind
@each_direction
@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_any_cell_runs_over_each_sequence(lengths, kind, reverse):
    def cell(x, state):
        h = (x[:, :2] + 0.5 * state["h"]).tanh()
        return {"h": h, "count": state["count"] + 1}, {"h": h, "count": state["count"] + 1}

    sequences = [torch.randn(n, 3, dtype=torch.float64) for n in lengths]
    b = len(lengths)
    state = {"h": torch.randn(b, 2, dtype=torch.float64), "count": torch.arange(b)}
    output, final = scan(cell, batch_of(sequences, kind), state, reverse=reverse)
    hs, counts = unpacked(output["h"]), unpacked(output["count"])
    for i, sequence in enumerate(sequences):
        alone = {name: s[i : i + 1] for name, s in state.items()}
        for t in reversed(range(len(sequence))) if reverse else range(len(sequence)):
            rows, alone = cell(sequence[t : t + 1], alone)
            torch.testing.assert_close(hs[i][t], rows["h"][0])
            assert counts[i][t] == rows["count"][0]
        torch.testing.assert_close(final["h"][i], alone["h"][0])
        assert final["count"][i] == alone["count"][0]


@each_direction
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_with_torchs_cells_it_is_the_layer(name, reverse):
    layer = getattr(torch.nn, name)(3, 4, bidirectional=True, dtype=torch.float64)
    cell = getattr(torch.nn, name + "Cell")(3, 4, dtype=torch.float64)
    suffix = "_l0_reverse" if reverse else "_l0"
    for own, value in cell.named_parameters():
        value.data.copy_(getattr(layer, own + suffix).detach())
    sequences = [torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (3, 5, 1)]
    batch = batch_of(sequences, "PackedSequence")
    h = torch.randn(3, 4, dtype=torch.float64)
    state = (h, h + 1) if name == "LSTM" else h
    output, final = scan(cell, batch, state, reverse=reverse)
    both = tuple(torch.stack([s, s]) for s in state) if name == "LSTM" else torch.stack([h, h])
    expected, last = layer(batch, both)
    half = expected.data.chunk(2, 1)[reverse]
    torch.testing.assert_close(output.data, half)
    for got, wanted in zip(
        final if name == "LSTM" else [final], last if name == "LSTM" else [last], strict=True
    ):
        torch.testing.assert_close(got, wanted[int(reverse)])
    ours = torch.autograd.grad(output.data.square().sum(), sequences, retain_graph=True)
    theirs = torch.autograd.grad(half.square().sum(), sequences)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_outputs_have_indices_only_if_the_input_has():
    sequences = [torch.randn(n, 3) for n in (3, 1)]
    for batch in (
        torch.nn.utils.rnn.pack_sequence(sequences),
        torch.nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False),
    ):
        output, _ = scan(lambda x, s: (x, s), batch, torch.zeros(2))
        assert torch.equal(output.data, batch.data)
        assert (output.sorted_indices is None) == (batch.sorted_indices is None)


def test_bad_cells_and_states_are_named():
    packed = Packed(torch.zeros(3, 2), [2, 1])
    with pytest.raises(ValueError, match="states must have B = 2 rows"):
        scan(lambda x, s: (x, s), packed, torch.zeros(3))
    with pytest.raises(ValueError, match="output must have the step's 2 rows"):
        scan(lambda x, s: (x[:1], s), packed, torch.zeros(2))
    with pytest.raises(ValueError, match="another structure"):
        scan(lambda x, s: (x, (s, s)), packed, torch.zeros(2))
    with pytest.raises(TypeError, match="got Tensor"):
        scan(lambda x, s: (x, s), torch.zeros(3), torch.zeros(2))


def test_decoding_calls_step_on_the_rows_that_are_alive():
    sizes = []

    def step(tokens, state):
        sizes.append(len(tokens))
        assert torch.equal(tokens % 10, state["seen"])
        scores = torch.nn.functional.one_hot(tokens + 1, 40).float()
        return scores, {"seen": state["seen"] + 1}

    start = torch.tensor([3, 0, 5, 6])
    result = decode(step, start, {"seen": start.clone()}, stop=6, max_length=4)
    assert [s.tolist() for s in result.unpack()] == [[4, 5, 6], [1, 2, 3, 4], [6], [7, 8, 9, 10]]
    assert sizes == [4, 3, 3, 2]


def test_each_sequence_is_decoded_as_it_is_alone():
    torch.manual_seed(0)
    cell, head, embed = torch.nn.GRUCell(4, 8), torch.nn.Linear(8, 6), torch.nn.Embedding(6, 4)

    def step(tokens, state):
        h = cell(embed(tokens), state)
        return head(h), h

    start, state = torch.randint(6, (9,)), torch.randn(9, 8) * 3
    together = decode(step, start, state, stop=2, max_length=12)
    for i in range(9):
        alone = decode(step, start[i : i + 1], state[i : i + 1], stop=2, max_length=12)
        assert torch.equal(alone.data, together[i])


def test_rows_that_are_no_tokens_end_by_a_predicate():
    result = decode(
        lambda x, s: (x * 2, s), torch.tensor([[1.0], [3.0]]), (), stop=lambda x: x[:, 0] > 8, max_length=9
    )
    assert [s.tolist() for s in result.unpack()] == [[[2.0], [4.0], [8.0], [16.0]], [[6.0], [12.0]]]
    assert len(decode(lambda x, s: (x, s), torch.zeros(0), (), stop=1, max_length=3)) == 0
    assert decode(lambda x, s: (x, s), torch.zeros(2), (), stop=1, max_length=0).lengths.tolist() == [0, 0]
    with pytest.raises(ValueError, match="must return the next rows"):
        decode(lambda x, s: (x[:1], s), torch.zeros(2), (), stop=1, max_length=3)
    assert padless.decode is decode


@pytest.mark.parametrize(
    ("start", "state", "error", "text"),
    [
        ([0, 3], (), TypeError, r"start must be a tensor \(B, \*\), got list"),
        (torch.tensor([0, 3]), torch.zeros(5), ValueError, r"2 rows, got shape \(5,\)"),
        (torch.tensor([0, 3]), [1], TypeError, "states must be tensors"),
    ],
)
def test_a_bad_start_of_decoding_is_named(start, state, error, text):
    with pytest.raises(error, match=text):
        decode(lambda rows, state: (rows + 1, state), start, state, stop=4, max_length=3)


@pytest.mark.parametrize(("stop", "max_length"), [(4, 3), (9, 1)], ids=["one ends", "none ends"])
@pytest.mark.parametrize("count", [7, 3])
def test_a_step_that_returns_a_state_with_other_rows_is_named(count, stop, max_length):
    def step(rows, _):
        return rows + 1, torch.zeros(count)

    with pytest.raises(ValueError, match=rf"2 rows, got shape \({count},\)"):
        decode(step, torch.tensor([0, 3]), torch.zeros(2), stop=stop, max_length=max_length)


def test_a_cell_that_returns_one_tensor_is_refused():
    with pytest.raises(TypeError, match=r"scan: the cell must return \(output, state\), got Tensor"):
        scan(lambda x, s: x, Packed(torch.zeros(3, 2), [2, 1]), torch.zeros(2))  # would be two rows
    with pytest.raises(TypeError, match="got 3 values"):
        scan(lambda x, s: (x, s, s), Packed(torch.zeros(3, 2), [2, 1]), torch.zeros(2))


@pytest.mark.parametrize("stops", [(5, 8), (100, 100), (8, 8)])
def test_a_step_may_reuse_its_buffer_and_work_in_place(stops):
    buffer = torch.zeros(2, dtype=torch.int64)

    def buffered(rows, state):
        buffer[: len(rows)] = rows + 1
        return buffer[: len(rows)], state

    def in_place(rows, state):
        state += 1
        rows += 1
        return rows, state

    def fresh(rows, state):
        return rows + 1, state + 1

    results = []
    for step in (buffered, in_place, fresh):
        start, state = torch.tensor([3, 7]), torch.zeros(2)
        stop = lambda rows: (rows == stops[0]) | (rows == stops[1])  # noqa: E731
        results.append([s.tolist() for s in decode(step, start, state, stop=stop, max_length=4).unpack()])
        assert start.tolist() == [3, 7]
        assert state.tolist() == [0, 0]
    assert results[0] == results[1] == results[2]


def test_rows_that_the_dtype_of_start_cannot_hold_are_refused():
    def run(rows, start):
        return decode(lambda *_: (rows, ()), start, (), stop=9, max_length=1).data

    whole = torch.tensor([0, 3])
    with pytest.raises(
        TypeError, match="rows of torch.float32, which torch.int64, the dtype of start, cannot hold"
    ):
        run(torch.tensor([1.5, 2.5]), whole)
    assert run(torch.tensor([1, 2], dtype=torch.int32), whole).tolist() == [1, 2]
    assert run(torch.tensor([1.0, 2.0], dtype=torch.bfloat16), torch.zeros(2)).tolist() == [1, 2]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"stop": [2, 3]}, "stop must be a token or a function, got list"),
        ({"stop": None}, "stop must be a token or a function, got NoneType"),
        ({"step": lambda rows, state: rows}, r"step must return \(scores, state\), got Tensor"),
        ({"step": lambda rows, state: (rows.tolist(), state)}, "a tensor of rows or scores, got list"),
    ],
)
def test_a_bad_call_of_decode_is_named(options, text):
    options = {"step": lambda rows, state: (rows + 1, state), "stop": 4, "max_length": 3, **options}
    with pytest.raises(TypeError, match=text):
        decode(options.pop("step"), torch.tensor([0, 3]), (), **options)


@pytest.mark.parametrize("max_length", [2.5, -1, None])
def test_a_bad_length_of_decode_is_named(max_length):
    with pytest.raises(ValueError, match="decode: max_length must be a whole number of at least 0"):
        decode(lambda rows, state: (rows, state), torch.tensor([0]), (), stop=4, max_length=max_length)


@pytest.mark.parametrize("stop", [3.0, torch.tensor(3.0), numpy.float32(3)])
def test_rows_of_numbers_may_end_at_a_number(stop):
    found = decode(
        lambda rows, state: (rows + 1, state), torch.tensor([0.0, 1.0]), (), stop=stop, max_length=5
    )
    assert [s.tolist() for s in found.unpack()] == [[1, 2, 3], [2, 3]]


def test_more_tokens_than_the_dtype_of_start_holds_are_refused():
    start = torch.tensor([5, 3], dtype=torch.uint8)

    def step(tokens, state):
        return torch.eye(257)[tokens.long()], state

    with pytest.raises(TypeError, match=r"scores of 257 tokens, more than torch\.uint8"):
        decode(step, start, (), stop=4, max_length=3)


@pytest.mark.parametrize("stop", [256, -1, 2.5, float("inf"), 1j])
def test_a_stop_that_no_row_equals_never_ends_a_sequence(stop):
    start = torch.tensor([0, 255], dtype=torch.uint8)
    result = decode(lambda tokens, state: (tokens, state), start, (), stop=stop, max_length=3)
    assert [rows.tolist() for rows in result.unpack()] == [[0, 0, 0], [255, 255, 255]]


def test_decisions_are_decoded():
    start = torch.tensor([True, False])
    result = decode(
        lambda rows, state: (torch.eye(2)[(~rows).long()], state), start, (), stop=True, max_length=3
    )
    assert [rows.tolist() for rows in result.unpack()] == [[False, True], [True]]


def test_sampled_tokens_of_shape_n_1_are_not_taken_for_scores():
    def step(tokens, state):
        return torch.multinomial(torch.ones(len(tokens), 5), 1), state

    with pytest.raises(
        ValueError, match=r"torch\.int64 \(2, 1\), scores of one token; return sampled tokens as \(2,\)"
    ):
        decode(step, torch.tensor([1, 2]), (), stop=0, max_length=3)


@pytest.mark.parametrize(
    ("start", "rows"),
    [
        (torch.tensor([1, 2], dtype=torch.uint8), torch.tensor([3, 299])),
        (torch.tensor([1, 2], dtype=torch.uint8), torch.tensor([3, -1])),
        (torch.tensor([1, 2], dtype=torch.int8), torch.tensor([3, 200], dtype=torch.uint8)),
        (torch.zeros(2), torch.tensor([3.0, 1e300], dtype=torch.float64)),
    ],
)
def test_rows_that_would_wrap_around_or_overflow_are_refused(start, rows):
    with pytest.raises(
        TypeError, match=rf"step returned {rows[1].item()}, which {start.dtype}".replace("+", r"\+")
    ):
        decode(lambda *_: (rows, ()), start, (), stop=0, max_length=1)


def test_infinite_rows_are_converted():
    rows = torch.tensor([float("inf"), float("nan")], dtype=torch.float64)
    found = decode(lambda *_: (rows, ()), torch.zeros(2), (), stop=0, max_length=1)
    torch.testing.assert_close(found.data, rows.float(), equal_nan=True)


@pytest.mark.parametrize("stop", [0, float("inf")])
def test_rows_of_several_numbers_do_not_end_at_a_number(stop):
    with pytest.raises(TypeError, match="stop must be a function for rows of several numbers"):
        decode(lambda rows, state: (rows, state), torch.zeros(2, 2), (), stop=stop, max_length=1)


@each_direction
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_cell_may_change_its_state_in_place(mode, reverse):
    def in_place(x, s):
        s.mul_(0.5).add_(x)
        return {"h": s, "double": s * 2}, s

    def fresh(x, s):
        s = s * 0.5 + x
        return {"h": s, "double": s * 2}, s

    lengths, results = [3, 1, 0, 2], []
    for cell in (in_place, fresh):
        torch.manual_seed(0)
        data = torch.randn(6, 2, dtype=torch.float64, requires_grad=True)
        state = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
        with mode():
            output, final = scan(cell, Packed(data, lengths), state, reverse=reverse)
            results.append([output["h"].data, output["double"].data, final])
            if mode is torch.enable_grad:
                loss = output["h"].data.square().sum() + final.square().sum()
                results[-1] += torch.autograd.grad(loss, [data, state])
    for got, wanted in zip(*results, strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_cell_that_reuses_the_memory_of_its_output_is_refused():
    buffer = torch.zeros(2, 1)

    def cell(x, s):
        buffer[: len(x)] = x + s
        return buffer[: len(x)], x + s

    with pytest.raises(ValueError, match="changed in place what it had returned as the output"):
        scan(cell, Packed(torch.ones(5, 1), [3, 2]), torch.zeros(2, 1))


def test_a_cell_that_returns_only_h_is_told_how_to_return_it_twice():
    cell = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(
        TypeError, match=r"got Tensor; for a cell that returns h, use lambda x, h: \(cell\(x, h\),\) \* 2"
    ):
        scan(lambda x, h: cell(x), Packed(torch.zeros(3, 2), [2, 1]), torch.zeros(2, 2))


def test_decode_keeps_the_sequences_of_a_packed_state_that_continue():
    """Attention over encoder outputs of other lengths, against each sequence alone."""
    torch.manual_seed(0)
    memory = [torch.randn(n, 4, dtype=torch.float64) for n in (3, 1, 5, 2)]
    start, ends = torch.randn(4, 4, dtype=torch.float64), torch.tensor([2, 4, 1, 3])

    def step(rows, state):
        encoded, left = state
        assert isinstance(encoded, Packed)
        scores = padless.ops.softmax(
            Packed((encoded.data * padless.ops.expand(encoded, rows).data).sum(1), encoded.lengths)
        )
        return rows + padless.ops.sum(encoded * scores.map(lambda s: s[:, None])), (encoded, left - 1)

    def run(which):
        count = [0]
        steps = ends[which]

        def stop(rows):
            count[0] += 1
            return steps[steps >= count[0]] == count[0]

        state = (padless.pack([memory[i] for i in which]), steps)
        return decode(step, start[which], state, stop=stop, max_length=4).unpack()

    together = run([0, 1, 2, 3])
    assert [len(rows) for rows in together] == ends.tolist()
    for i in range(4):
        torch.testing.assert_close(together[i], run([i])[0])


def test_states_of_other_types_are_refused_by_name():
    batch, nested = (
        Packed(torch.zeros(3, 2), [2, 0, 1]),
        torch.nested.nested_tensor([torch.zeros(2), torch.zeros(1)]),
    )
    for state, got in ((Packed(torch.zeros(3), [2, 0, 1]), "Packed"), ([nested], "a nested tensor")):
        with pytest.raises(TypeError, match=f"states must be tensors.*got {got}"):
            padless.scan(lambda x, s: (x, s), batch, state)
    with pytest.raises(TypeError, match="got a nested tensor"):
        decode(lambda x, s: (x, s), torch.zeros(2, 2), nested, stop=lambda rows: rows[:, 0] > 0, max_length=1)
    with pytest.raises(ValueError, match="states must have 2 sequences"):
        decode(lambda x, s: (x, s), torch.zeros(2, 2), batch, stop=lambda rows: rows[:, 0] > 0, max_length=1)
