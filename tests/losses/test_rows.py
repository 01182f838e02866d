"""Losses of rows against torch's on the padded batch with the padding left out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import padless
from padless import Packed, losses

LENGTHS = [3, 0, 5, 1]
each_kind = pytest.mark.parametrize("kind", ["Packed", "PackedSequence"])


def batch_of(data, kind, lengths=LENGTHS):
    packed = Packed(data, lengths)
    return packed.to_packed_sequence() if kind == "PackedSequence" else packed


def tensors(trailing=()):
    torch.manual_seed(0)
    logits = torch.randn(9, 4, *trailing, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(4, (9, *trailing))
    targets.view(9, -1)[2] = -100
    targets.view(9, -1)[8] = -100  # all of the last sequence
    return logits, targets


def assert_same_with_gradient(got, expected, *leaves):
    torch.testing.assert_close(got, expected)
    ours = torch.autograd.grad(got, leaves, retain_graph=True)
    theirs = torch.autograd.grad(expected, leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@each_kind
@pytest.mark.parametrize("trailing", [(), (2,)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_cross_entropy_is_that_of_the_rows(kind, trailing, weighted, smoothing, reduction):
    logits, targets = tensors(trailing)
    options = {
        "weight": torch.rand(4, dtype=torch.float64) if weighted else None,
        "label_smoothing": smoothing,
    }
    got = losses.cross_entropy(
        batch_of(logits, kind), batch_of(targets, kind), reduction=reduction, **options
    )
    assert_same_with_gradient(
        got, functional.cross_entropy(logits, targets, reduction=reduction, **options), logits
    )


@each_kind
@pytest.mark.parametrize("weighted", [False, True])
def test_sequence_mean_is_the_mean_of_the_means_of_sequences_that_count(kind, weighted):
    logits, targets = tensors()
    weight = torch.rand(4, dtype=torch.float64) if weighted else None
    got = losses.cross_entropy(
        batch_of(logits, kind), batch_of(targets, kind), reduction="sequence_mean", weight=weight
    )
    parts = [functional.cross_entropy(logits[a:b], targets[a:b], weight=weight) for a, b in ((0, 3), (3, 8))]
    assert_same_with_gradient(got, sum(parts) / 2, logits)


@each_kind
def test_none_returns_the_kind_that_came_in(kind):
    logits, targets = tensors()
    batch = batch_of(logits, kind)
    got = losses.cross_entropy(batch, batch_of(targets, kind), reduction="none")
    assert type(got) is type(batch)
    rows = Packed.from_packed_sequence(got).data if kind == "PackedSequence" else got.data
    torch.testing.assert_close(rows, functional.cross_entropy(logits, targets, reduction="none"))


@each_kind
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_other_losses_are_those_of_the_rows(kind, reduction):
    logits, targets = tensors()
    logs = logits.log_softmax(1)
    got = losses.nll_loss(batch_of(logs, kind), batch_of(targets, kind), reduction=reduction)
    assert_same_with_gradient(got, functional.nll_loss(logs, targets, reduction=reduction), logits)
    wanted = torch.rand(9, 4, dtype=torch.float64)
    got = losses.mse_loss(batch_of(logits, kind), batch_of(wanted, kind), reduction=reduction)
    assert_same_with_gradient(got, functional.mse_loss(logits, wanted, reduction=reduction), logits)
    options = {"weight": torch.rand(4, dtype=torch.float64), "pos_weight": torch.rand(4, dtype=torch.float64)}
    got = losses.binary_cross_entropy_with_logits(
        batch_of(logits, kind), batch_of(wanted, kind), reduction=reduction, **options
    )
    expected = functional.binary_cross_entropy_with_logits(logits, wanted, reduction=reduction, **options)
    assert_same_with_gradient(got, expected, logits)


@each_kind
def test_probabilities_are_targets(kind):
    logits, _ = tensors()
    wanted = torch.rand(9, 4, dtype=torch.float64)
    got = losses.cross_entropy(batch_of(logits, kind), batch_of(wanted, kind))
    assert_same_with_gradient(got, functional.cross_entropy(logits, wanted), logits)


@each_kind
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_ctc_is_that_of_each_sequence(kind, reduction):
    torch.manual_seed(0)
    lengths, labels = [7, 5, 9], [2, 1, 3]
    logits = torch.randn(21, 5, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(1, 5, (6,))
    got = losses.ctc_loss(
        batch_of(logits, kind, lengths), batch_of(targets, kind, labels), reduction=reduction
    )
    alone = []
    for x, y in zip(logits.split(lengths), targets.split(labels), strict=True):
        alone.append(
            functional.ctc_loss(x.log_softmax(1)[:, None], y[None], [len(x)], [len(y)], reduction="sum")
        )
    each = torch.stack(alone)
    expected = {"none": each, "sum": each.sum(), "mean": (each / torch.tensor(labels)).mean()}[reduction]
    assert_same_with_gradient(got.sum(), expected.sum(), logits)


def test_bad_calls_name_what_is_wrong():
    rows, targets = Packed(torch.zeros(3, 2), [2, 1]), Packed(torch.zeros(3, dtype=torch.int64), [2, 1])
    with pytest.raises(
        ValueError, match="reduction must be one of mean, sum, none, sequence_mean, got 'average'"
    ):
        losses.cross_entropy(rows, targets, reduction="average")
    with pytest.raises(padless.LengthsError, match=r"lengths\[0\] is 2 in the inputs, but 1 in the targets"):
        losses.cross_entropy(rows, Packed(targets.data, [1, 2]))
    with pytest.raises(TypeError, match="two batches of one kind"):
        losses.cross_entropy(rows, targets.to_packed_sequence())
    with pytest.raises(TypeError, match="got Tensor"):
        losses.mse_loss(rows, torch.zeros(3, 2))
    with pytest.raises(padless.LayoutError, match=r"rows have shape \(2,\), targets \(\)"):
        losses.mse_loss(rows, targets.to(torch.float32))
    with pytest.raises(padless.LengthsError, match="logits have 2 sequences, but targets have 3"):
        losses.ctc_loss(rows, Packed(targets.data, [1, 1, 1]))


def test_ctc_of_no_frames_is_0_where_there_are_no_labels():
    frames, labels = Packed(torch.zeros(0, 3), [0, 0]), Packed(torch.zeros(0, dtype=torch.int64), [0, 0])
    assert losses.ctc_loss(frames, labels, reduction="none").tolist() == [0, 0]


def test_means_of_narrow_floats_count_in_float32():
    rows = Packed(torch.ones(2001, dtype=torch.bfloat16), [2001])
    assert losses.mse_loss(rows, rows * 0).item() == 1
    assert losses.mse_loss(rows, rows * 0, reduction="sequence_mean").item() == 1


def test_packed_sequences_with_and_without_indices_go_together():
    with_none = padless.rnn.pack_sequence([torch.randn(3, 4), torch.randn(2, 4)])
    targets = [torch.tensor([0, 1, 2]), torch.tensor([3, 0])]
    expected = losses.cross_entropy(with_none, padless.rnn.pack_sequence(targets))
    assert torch.equal(
        losses.cross_entropy(with_none, padless.rnn.pack_sequence(targets, enforce_sorted=False)), expected
    )
    reversed_twice = padless.ops.reverse(padless.ops.reverse(with_none))
    assert reversed_twice.sorted_indices is None
    assert torch.equal(losses.cross_entropy(reversed_twice, padless.rnn.pack_sequence(targets)), expected)


def test_ties_in_another_order_are_the_same_sequences():
    scores = [torch.randn(n, 4) for n in (2, 3, 3)]
    classes = [torch.randint(0, 4, (n,)) for n in (2, 3, 3)]
    inputs = padless.rnn.pack_sequence(scores, enforce_sorted=False)
    order = torch.tensor([2, 1, 0])
    assert inputs.sorted_indices.tolist() == [1, 2, 0]
    data = padless.rnn.pack_sequence([classes[i] for i in order]).data
    targets = torch.nn.utils.rnn.PackedSequence(data, inputs.batch_sizes, order, order)
    expected = functional.cross_entropy(torch.cat(scores), torch.cat(classes))
    torch.testing.assert_close(losses.cross_entropy(inputs, targets), expected)


@pytest.mark.parametrize("kind", ["packed", "packed_sequence"])
def test_other_lengths_in_a_compiled_program_are_an_error_when_it_runs(kind):
    loss = torch.compile(losses.cross_entropy, fullgraph=True, backend="aot_eager")
    inputs, targets = Packed(torch.randn(5, 4), [3, 2]), Packed(torch.tensor([0, 1, 2, 3, 0]), [3, 2])
    other = Packed(targets.data, [4, 1])
    if kind == "packed_sequence":
        inputs, targets, other = (batch.to_packed_sequence() for batch in (inputs, targets, other))
    torch.testing.assert_close(loss(inputs, targets), losses.cross_entropy(inputs, targets))
    with pytest.raises(RuntimeError, match="different lengths"):
        loss(inputs, other)


@pytest.mark.parametrize("label", [3, -1, 0, 1.5])
def test_ctc_refuses_labels_that_torch_would_look_up_elsewhere(label):
    with pytest.raises(ValueError, match=r"targets(\.data\[1\]| must be whole)"):
        losses.ctc_loss(Packed(torch.zeros(5, 3), [5]), Packed(torch.tensor([1, label]), [2]))


@each_kind
def test_logits_without_classes_are_refused(kind):
    logits = batch_of(torch.zeros(9), kind)
    for targets in (torch.zeros(9, dtype=torch.int64), torch.rand(9)):
        with pytest.raises(ValueError, match=r"cross_entropy: logits must be \(N, C, ...\), got \(9,\)"):
            losses.cross_entropy(logits, batch_of(targets, kind))
        with pytest.raises(
            ValueError, match=r"nll_loss: log_probabilities must be \(N, C, ...\), got \(9,\)"
        ):
            losses.nll_loss(logits, batch_of(targets, kind))


@each_kind
@pytest.mark.parametrize("reduction", ["mean", "sum", "sequence_mean"])
@pytest.mark.parametrize("function", [losses.cross_entropy, losses.nll_loss])
def test_uint8_targets_are_classes_not_a_mask(kind, reduction, function):
    torch.manual_seed(0)
    logits, weight = torch.randn(9, 200, dtype=torch.float64), torch.rand(200, dtype=torch.float64)
    targets = torch.tensor([0, 1, 156, 1, 0, 199, 1, 1, 0])  # 156 is -100 in uint8
    narrow, whole = (
        function(batch_of(logits, kind), batch_of(classes, kind), reduction=reduction, weight=weight)
        for classes in (targets.to(torch.uint8), targets)
    )
    torch.testing.assert_close(narrow, whole)


def test_ctc_names_the_label_where_it_is_in_a_packed_sequence():
    targets = torch.nn.utils.rnn.pack_sequence([torch.tensor([2, 9]), torch.tensor([1, 1])])
    assert targets.data.tolist() == [2, 1, 9, 1]
    with pytest.raises(ValueError, match=r"targets.data\[2\] = 9 is not a class"):
        losses.ctc_loss(Packed(torch.zeros(6, 3), [3, 3]), targets)


@each_kind
def test_ctc_of_no_sequences_is_what_the_other_losses_are(kind):
    logits = torch.zeros(0, 3, requires_grad=True)
    frames, labels = batch_of(logits, kind, []), batch_of(torch.zeros(0, dtype=torch.int64), kind, [])
    for reduction in ("mean", "sum", "none"):
        got = losses.ctc_loss(frames, labels, reduction=reduction)
        expected = losses.cross_entropy(frames, labels, reduction=reduction)
        expected = expected.data if reduction == "none" else expected
        torch.testing.assert_close(got, expected, equal_nan=True)
        got.sum().backward()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_ctc_of_narrow_floats_is_computed_in_float32(dtype):
    logits, labels = torch.randn(8, 3).to(dtype).requires_grad_(), Packed(torch.tensor([1, 2, 1]), [2, 1])
    got = losses.ctc_loss(Packed(logits, [5, 3]), labels)
    assert got.dtype == dtype
    torch.testing.assert_close(got, losses.ctc_loss(Packed(logits.float(), [5, 3]), labels).to(dtype))
    got.backward()
    assert logits.grad.isfinite().all()


def test_ctc_under_autocast_is_float32_as_torchs():
    labels = torch.randint(1, 5, (6,))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        frames = torch.nn.Linear(5, 5)(torch.randn(20, 5) * 4)
        got = losses.ctc_loss(Packed(frames, [20]), Packed(labels, [6]), reduction="sum")
    logs = frames.float().log_softmax(-1)[:, None]
    expected = functional.ctc_loss(logs, labels[None], [20], [6], reduction="sum")
    assert frames.dtype == torch.bfloat16
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("kind", ["Packed", "PackedSequence"])
def test_a_weight_may_be_a_batch(kind):
    logits, targets, weight = (Packed(torch.rand(6, 2, dtype=torch.float64), [1, 3, 2]) for _ in range(3))
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        logits.data, targets.data, weight=weight.data
    )
    if kind == "PackedSequence":
        logits, targets, weight = (b.to_packed_sequence() for b in (logits, targets, weight))
    loss = losses.binary_cross_entropy_with_logits(logits, targets, weight=weight)
    torch.testing.assert_close(loss, expected)
    other = Packed(torch.rand(6, 2), [3, 1, 2])
    with pytest.raises((padless.LengthsError, TypeError)):
        losses.binary_cross_entropy_with_logits(logits, targets, weight=other)
