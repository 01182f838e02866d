"""Layers that know borders: Conv1d, LockedDropout, CRF and stacks of any cell, each held against sequences alone."""

from __future__ import annotations

import functools
import re
import sys
from itertools import pairwise, product

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence

import padless
from padless import Packed

each_kind = pytest.mark.parametrize("kind", ["Packed", "PackedSequence"])
LENGTHS = [[3, 1, 5, 2], [0, 4, 0, 1], [7], [0, 0], []]
each_lengths = pytest.mark.parametrize("lengths", LENGTHS, ids=str)


def batch_of(sequences, kind, width):
    data = torch.cat(sequences) if sequences else torch.zeros(0, width, dtype=torch.float64)
    packed = Packed(data, [len(s) for s in sequences])
    return packed.to_packed_sequence() if kind == "PackedSequence" else packed


def unpacked(batch):
    return (Packed.from_packed_sequence(batch) if isinstance(batch, PackedSequence) else batch).unpack()


def rows_of(lengths, width):
    torch.manual_seed(0)
    return [torch.randn(n, width, dtype=torch.float64) for n in lengths]


@each_kind
@each_lengths
@pytest.mark.parametrize(
    "options",
    [{}, {"padding": "valid"}, {"padding": 2, "stride": 2}, {"padding": "causal", "dilation": 2}, {"groups": 2},
     {"padding": "causal", "stride": 3}, {"padding": 1, "stride": 3, "dilation": 2, "bias": False}],
    ids=str,
)  # fmt: skip
def test_a_convolution_is_that_of_each_sequence(lengths, kind, options):
    conv = padless.nn.Conv1d(4, 6, 3, dtype=torch.float64, **options)
    padding, reach = options.get("padding", "same"), 2 * options.get("dilation", 1)
    alone = torch.nn.Conv1d(
        4, 6, 3, dtype=torch.float64, **options | {"padding": padding if padding != "causal" else 0}
    )
    alone.load_state_dict(conv.state_dict())
    sequences = rows_of(lengths, 4)
    for got, x in zip(unpacked(conv(batch_of(sequences, kind, 4))), sequences, strict=True):
        column = x.t()[None]
        if padding == "causal":
            column = torch.nn.functional.pad(column, (reach, 0))
        zeros = 2 * padding if isinstance(padding, int) else reach if padding == "same" else 0
        if len(x) == 0 or column.shape[2] + zeros < reach + 1:
            assert got.shape == (0, 6)
        else:
            torch.testing.assert_close(got, alone(column)[0].t())


def test_a_convolution_has_torchs_gradients_and_never_reads_a_neighbour():
    conv = padless.nn.Conv1d(2, 2, 3, dtype=torch.float64)
    data = torch.randn(7, 2, dtype=torch.float64, requires_grad=True)
    run = lambda d: conv(Packed(d, [3, 4])).data  # noqa: E731
    assert torch.autograd.gradcheck(run, data)
    dirty = data.detach().clone()
    dirty[3:] = float("nan")
    assert torch.equal(run(dirty)[:3], run(data)[:3])
    with pytest.raises(ValueError, match="padding must be same, valid, causal or a number, got 'full'"):
        padless.nn.Conv1d(2, 2, 3, padding="full")
    with pytest.raises(ValueError, match=r"takes data \(N, 2\), got \(3, 5\)"):
        conv(Packed(torch.zeros(3, 5), [3]))


@each_kind
def test_locked_dropout_draws_one_mask_a_sequence(kind):
    layer = padless.nn.LockedDropout(0.4)
    torch.manual_seed(0)
    ones = [torch.ones(n, 500, dtype=torch.float64) for n in (3, 0, 2)]
    batch = batch_of(ones, kind, 500)
    got = unpacked(layer(batch))
    for rows in got:
        assert len(rows) == 0 or torch.equal(rows, rows[:1].expand_as(rows))
    assert not torch.equal(got[0][0], got[2][0])
    assert set(got[0].unique().tolist()) == {0.0, 1 / 0.6}
    assert 0.5 < (got[0][0] > 0).double().mean() < 0.7
    assert layer.eval()(batch) is batch
    assert padless.nn.LockedDropout(0)(batch) is batch
    with pytest.raises(TypeError, match="LockedDropout takes a Packed or a PackedSequence, got list"):
        layer([])
    with pytest.raises(ValueError, match="p must be from 0 to 1, got 2"):
        padless.nn.LockedDropout(2)


def paths(crf, x):
    """Every tagging of one sequence and its score, by enumeration."""
    found = {}
    for tags in product(range(crf.tags), repeat=len(x)):
        score = sum(x[t, tag] for t, tag in enumerate(tags))
        score = score + sum(crf.transitions[a, b] for a, b in pairwise(tags))
        found[tags] = score + crf.start[tags[0]] + crf.end[tags[-1]] if tags else x.new_zeros(())
    return found


@each_kind
@each_lengths
def test_a_crf_is_the_enumeration_of_all_taggings(lengths, kind):
    if max(lengths, default=0) > 5:
        lengths = [5]
    crf = padless.nn.CRF(3, dtype=torch.float64)
    with torch.no_grad():
        for scores in crf.parameters():
            scores.normal_()
    sequences = rows_of(lengths, 3)
    emissions = batch_of(sequences, kind, 3)
    tags = [torch.randint(3, (n,)) for n in lengths]
    targets = Packed(torch.cat(tags) if tags else torch.zeros(0, dtype=torch.int64), lengths)
    targets = targets.to_packed_sequence() if kind == "PackedSequence" else targets
    likelihoods, decoded = crf(emissions, targets), unpacked(crf.decode(emissions))
    marginals = unpacked(crf.marginals(emissions))
    assert likelihoods.shape == (len(lengths),)
    for i, x in enumerate(sequences):
        scores = paths(crf, x)
        total = torch.stack(list(scores.values())).logsumexp(0)
        torch.testing.assert_close(likelihoods[i], scores[tuple(tags[i].tolist())] - total)
        assert tuple(decoded[i].tolist()) == max(scores, key=scores.get)
        for t in range(len(x)):
            for tag in range(3):
                with_tag = [s for path, s in scores.items() if path[t] == tag]
                torch.testing.assert_close(
                    marginals[i][t, tag], (torch.stack(with_tag).logsumexp(0) - total).exp()
                )


def test_a_crf_has_the_gradient_of_its_likelihood():
    crf = padless.nn.CRF(3, dtype=torch.float64)
    data = torch.randn(6, 3, dtype=torch.float64, requires_grad=True)
    targets = Packed(torch.tensor([0, 2, 1, 1, 0, 2]), [2, 0, 4])
    assert torch.autograd.gradcheck(lambda d: crf(Packed(d, [2, 0, 4]), targets), data)
    assert torch.autograd.gradcheck(lambda d: crf.marginals(Packed(d, [2, 0, 4])).data, data)


def test_a_crf_names_the_first_wrong_tag_and_length():
    crf, emissions = padless.nn.CRF(3), Packed(torch.zeros(6, 3), [2, 4])
    for wrong in (3, -1):
        targets = Packed(torch.tensor([0, 2, 1, wrong, 0, wrong]), [2, 4])
        with pytest.raises(ValueError, match=rf"targets.data\[3\] = {wrong} is not a tag from 0 to 2"):
            crf(emissions, targets)
    with pytest.raises(
        padless.LengthsError, match=r"CRF: lengths\[0\] is 2 in the emissions, but 3 in the targets"
    ):
        crf(emissions, Packed(targets.data, [3, 3]))


def test_a_crf_with_forbidden_tags_has_the_gradients_of_the_allowed_taggings():
    torch.manual_seed(0)
    crf = padless.nn.CRF(3, dtype=torch.float64)
    with torch.no_grad():
        crf.transitions[0, 1] = crf.transitions[2, 2] = crf.transitions[:, 0] = -torch.inf
        crf.start[1] = crf.end[2] = -torch.inf
    sequences, tags = rows_of([4, 1, 0, 3], 3), [[0, 2, 1, 1], [0], [], [2, 1, 1]]
    data = torch.cat(sequences).requires_grad_()
    batch = Packed(data, [4, 1, 0, 3])
    likelihoods = crf(batch, Packed(torch.tensor([tag for each in tags for tag in each]), [4, 1, 0, 3]))
    expected, marginals = [], []
    for x, each in zip(data.split([4, 1, 0, 3]), tags, strict=True):
        allowed = {path: score for path, score in paths(crf, x).items() if score.isfinite()}
        total = torch.stack(list(allowed.values())).logsumexp(0)
        expected.append(allowed[tuple(each)] - total)
        for t, tag in product(range(len(x)), range(3)):
            with_tag = [score for path, score in allowed.items() if path[t] == tag]
            marginals.append((torch.stack(with_tag).logsumexp(0) - total).exp() if with_tag else total * 0)
    torch.testing.assert_close(likelihoods, torch.stack(expected))
    leaves = [data, *crf.parameters()]
    ours, theirs = (
        torch.autograd.grad(sum(each), leaves, retain_graph=True) for each in (likelihoods, expected)
    )
    torch.testing.assert_close(ours, theirs)
    got, wanted = crf.marginals(batch).data, torch.stack(marginals).view(-1, 3)
    torch.testing.assert_close(got, wanted)
    weights = torch.randn_like(wanted)
    ours, theirs = (torch.autograd.grad((each * weights).sum(), leaves) for each in (got, wanted))
    torch.testing.assert_close(ours, theirs)


def test_locked_dropout_refuses_whole_numbers():
    with pytest.raises(TypeError, match="LockedDropout takes floating-point data, got torch.int64"):
        padless.nn.LockedDropout(0.5)(Packed(torch.arange(4), [3, 1]))


@each_kind
@pytest.mark.parametrize("name", ["LSTM", "GRU", "RNN"])
def test_a_stack_of_torchs_cells_is_torchs_layer(name, kind):
    layer = getattr(torch.nn, name)(3, 4, num_layers=2, bidirectional=True, dtype=torch.float64)
    stack = padless.nn.Recurrent(
        getattr(torch.nn, name + "Cell"), 3, 4, num_layers=2, bidirectional=True
    ).double()
    with torch.no_grad():
        for place, cell in enumerate(stack.cells):
            suffix = f"_l{place // 2}" + ("_reverse" if place % 2 else "")
            for own, value in cell.named_parameters():
                value.copy_(getattr(layer, own + suffix))
    batch = batch_of(rows_of([3, 5, 1], 3), kind, 3)
    sequence = batch if kind == "PackedSequence" else batch.to_packed_sequence()
    h = torch.randn(4, 3, 4, dtype=torch.float64)
    for hx in (None, (h, h + 1) if name == "LSTM" else h):
        output, state = stack(batch, hx)
        assert type(output) is type(batch)
        expected, last = layer(sequence, hx)
        torch.testing.assert_close(unpacked(output), unpacked(expected))
        torch.testing.assert_close(state, last)


@pytest.mark.parametrize("name", ["LayerNormLSTM", "LayerNormGRU"])
def test_layer_norm_cells_follow_their_equations(name):
    torch.manual_seed(0)
    layer = getattr(padless.nn, name)(3, 4).double()
    cell, sequences = layer.cells[0], rows_of([3, 0, 2], 3)
    output, _ = layer(Packed(torch.cat(sequences), [3, 0, 2]))
    norm = lambda v: (v - v.mean()) / (v.var(unbiased=False) + 1e-5).sqrt()  # noqa: E731
    for got, x in zip(output, sequences, strict=True):
        h = c = torch.zeros(4, dtype=torch.float64)
        for t in range(len(x)):
            a, b = norm(cell.weight_ih @ x[t]), norm(cell.weight_hh @ h)
            if name == "LayerNormLSTM":
                i, f, g, o = (a + b).chunk(4)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * norm(c).tanh()
            else:
                r, z = ((a[k : k + 4] + b[k : k + 4]).sigmoid() for k in (0, 4))
                n = (a[8:] + r * b[8:]).tanh()
                h = (1 - z) * n + z * h
            torch.testing.assert_close(got[t], h)


@pytest.mark.parametrize("option", ["padding", "stride", "dilation", "kernel_size"])
@pytest.mark.parametrize("value", [-1, 0, 1.5, (1, 2)])
def test_a_convolution_of_impossible_sizes_is_refused(option, value):
    if (option, value) != ("padding", 0):
        text = f"Conv1d: {option} must be a whole number of at least {int(option != 'padding')}, got {value}"
        with pytest.raises(ValueError, match=re.escape(text)):
            padless.nn.Conv1d(2, 2, **{"kernel_size": 3, "padding": 0, option: value})
    assert padless.nn.Conv1d(2, 2, (3,), (2,), (1,)).padding == (1,)


@pytest.mark.parametrize(
    ("make", "options", "shapes", "count"),
    [
        (padless.nn.LayerNormGRU, {}, [(2, 2, 4)], 1),
        (padless.nn.LayerNormGRU, {"num_layers": 2}, [(1, 2, 4)], 1),
        (padless.nn.LayerNormGRU, {}, [(1, 3, 4)], 1),
        (padless.nn.LayerNormGRU, {}, [(1, 2, 5)], 1),
        (padless.nn.LayerNormLSTM, {}, [(1, 2, 4)], 2),
        (functools.partial(padless.nn.Recurrent, torch.nn.LSTMCell), {}, [(1, 2, 4)], 2),
        (functools.partial(padless.nn.Recurrent, torch.nn.GRUCell), {}, [(2, 2, 4)], 1),
    ],
)
def test_initial_states_of_another_form_are_refused(make, options, shapes, count):
    layer, states = make(3, 4, **options), [torch.zeros(shape) for shape in shapes]
    expected = [options.get("num_layers", 1), 2, 4]
    text = f"(L*D, B, H), {count} of {expected}, got {[list(shape) for shape in shapes]}"
    with pytest.raises(
        ValueError, match=re.escape(f"{type(layer).__name__}: initial states must be tensors {text}")
    ):
        layer(Packed(torch.zeros(4, 3), [3, 1]), states[0])


class Counting(torch.nn.Module):
    """A cell whose state has a form that only it knows."""

    def __init__(self, input_size, hidden_size):
        super().__init__()

    def forward(self, rows, state):
        return state["count"], {"count": state["count"] + 1}


def test_states_of_a_cell_without_initial_states_need_a_row_a_layer_and_sequence():
    layer, batch = padless.nn.Recurrent(Counting, 3, 4), Packed(torch.zeros(4, 3), [3, 1])
    _, state = layer(batch, {"count": torch.zeros(1, 2, 4)})
    assert state["count"][0, :, 0].tolist() == [3, 1]
    with pytest.raises(ValueError, match=r"\(L\*D, B, \*\), beginning with \[1, 2\], got \[\[2, 2, 4\]\]"):
        layer(batch, {"count": torch.zeros(2, 2, 4)})


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: padless.nn.CRF(2.5), "CRF: tags"),
        (lambda: padless.nn.CRF(0), "CRF: tags"),
        (lambda: padless.nn.LayerNormGRU(4, 0), "LayerNormGRU: hidden_size"),
        (lambda: padless.nn.LayerNormLSTM(4, 2.5), "LayerNormLSTM: hidden_size"),
        (lambda: padless.nn.LayerNormGRUCell(4, 0), "LayerNormGRUCell: hidden_size"),
        (lambda: padless.nn.LayerNormGRU(4, 2, 0), "LayerNormGRU: num_layers"),
        (lambda: padless.nn.LayerNormLSTM(-1, 4), "LayerNormLSTM: input_size"),
        (lambda: padless.nn.LayerNormLSTMCell(-1, 4), "LayerNormLSTMCell: input_size"),
    ],
)
def test_layers_of_impossible_sizes_are_refused(make, name):
    least = 0 if name.endswith("input_size") else 1  # torch's cells take rows without elements
    with pytest.raises(ValueError, match=f"{name} must be a whole number of at least {least}"):
        make()


def test_errors_of_a_stack_name_its_class():
    for layer in (padless.nn.LayerNormLSTM(3, 4), padless.nn.Recurrent(torch.nn.GRUCell, 3, 4)):
        name = type(layer).__name__
        with pytest.raises(ValueError, match=rf"^{name} takes data \(N, 3\), got \(4, 2\)"):
            layer(Packed(torch.zeros(4, 2), [3, 1]))
        with pytest.raises(TypeError, match=f"^{name} takes a Packed or a PackedSequence, got Tensor"):
            layer(torch.zeros(4, 3))


def test_a_crf_takes_emissions_and_targets_of_different_kinds():
    crf, emissions = padless.nn.CRF(3), Packed(torch.randn(4, 3), [1, 3])
    targets = Packed(torch.tensor([0, 2, 1, 1]), [1, 3])
    for mixed in ((emissions.to_packed_sequence(), targets), (emissions, targets.to_packed_sequence())):
        torch.testing.assert_close(crf(*mixed), crf(emissions, targets))


def test_initial_states_of_a_stack_may_be_a_list():
    stack, batch = (
        padless.nn.Recurrent(torch.nn.LSTMCell, 3, 4, num_layers=2),
        Packed(torch.randn(4, 3), [3, 1]),
    )
    h, c = torch.randn(2, 2, 4), torch.randn(2, 2, 4)
    (output, finals), (expected, states) = stack(batch, [h, c]), stack(batch, (h, c))
    assert torch.equal(output.data, expected.data)
    assert all(torch.equal(a, b) for a, b in zip(finals, states, strict=True))


def test_a_likelihood_waits_for_a_device_twice(monkeypatch):
    """Once for the tags and once for scores of -inf."""
    read, callers = torch.Tensor.__bool__, []

    def noted(tensor):
        callers.append(sys._getframe(1).f_globals["__name__"])
        return read(tensor)

    crf, emissions = padless.nn.CRF(3), Packed(torch.randn(4, 3), [3, 1])
    monkeypatch.setattr(torch.Tensor, "__bool__", noted)
    crf(emissions, Packed(torch.tensor([0, 2, 1, 1]), [3, 1]))
    assert callers.count("padless.nn.crf") == 2
