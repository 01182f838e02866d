"""`padless.testing.check_batch_invariance` finds the module that reads padding, and no other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial

import numpy
import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pad_sequence

import padless
from padless.testing import check_batch_invariance


def padded(sequences):
    return pad_sequence(sequences, batch_first=True), torch.tensor([len(s) for s in sequences])


class Model(nn.Module):
    def __init__(self, reads_padding: bool):
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.conv = nn.Conv1d(4, 4, 3, padding=1)
        self.rnn = padless.nn.GRU(4, 5, batch_first=True)
        self.reads_padding = reads_padding

    def forward(self, x, lengths):
        h = self.first(x)
        if self.reads_padding:
            h = self.conv(h.transpose(1, 2)).transpose(1, 2)
        return self.rnn(h, lengths=lengths)[0]


class Transposed(Model):
    def forward(self, x, lengths):
        h = self.first(x)
        mask = torch.arange(x.shape[1])[None, :, None] < lengths[:, None, None]
        return nn.functional.softmax(h, 1) * mask


SEQUENCES = [torch.randn(n, 3) for n in (4, 2, 7)]


def test_a_model_that_reads_only_its_rows_is_invariant():
    result = check_batch_invariance(Model(False), SEQUENCES, batch=padded)
    assert result.is_invariant
    assert result.compared == 4  # first, the GRU's output and state, the model
    assert "same result alone and in the batch (4 outputs)" in str(result)


def test_the_first_module_that_reads_padding_is_named():
    result = check_batch_invariance(Transposed(True), SEQUENCES, batch=padded, raise_exception=False)
    assert result.module == ""
    assert result.sequence in (0, 1)
    with pytest.raises(AssertionError, match="the model itself .Transposed. is the first"):
        check_batch_invariance(Transposed(True), SEQUENCES, batch=padded)
    # The bias of the linear layer makes padded cells non-zero, and the convolution reads them at the borders.
    result = check_batch_invariance(Model(True), SEQUENCES, batch=padded, raise_exception=False)
    assert result.module == "conv"
    assert re.search(
        r"module 'conv' \(Conv1d\) is the first whose output depends on the batch: "
        r"sequence \d differs by [\d.]+ \(relative for values over 1\) between",
        str(result),
    )


def test_channels_before_time_are_compared_without_their_padding():
    model = Model(True)
    model.conv = nn.Conv1d(4, 4, 1)  # reads no neighbour
    assert check_batch_invariance(model, SEQUENCES, batch=padded).compared == 5


def test_packed_models_are_checked_and_left_in_their_mode():
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = padless.nn.Conv1d(3, 4, 3)
            self.drop = padless.nn.LockedDropout(0.5)
            self.rnn = padless.nn.LSTM(4, 5, bidirectional=True)

        def forward(self, batch):
            return padless.ops.max(self.rnn(self.drop(self.conv(batch)))[0])

    model = Tagger()
    model.conv.eval()
    result = check_batch_invariance(model, SEQUENCES)
    assert result.is_invariant
    assert result.compared == 6
    assert model.training
    assert not model.conv.training
    with pytest.raises(ValueError, match="at least two sequences, got 1"):
        check_batch_invariance(model, SEQUENCES[:1])


@pytest.mark.parametrize(
    ("kind", "options", "lengths"),
    [
        ("GRU", {"bidirectional": True}, (3, 2)),
        ("GRU", {"num_layers": 2}, (3, 2)),
        ("LSTM", {"bidirectional": True}, (2, 2)),
        ("GRU", {"num_layers": 2, "bidirectional": True}, (4, 3, 2, 1)),
        ("GRU", {"bidirectional": True}, (2, 1, 2)),
    ],
)
def test_states_are_not_taken_for_rows_where_their_shape_fits_both(kind, options, lengths):
    layer = getattr(padless.nn, kind)(3, 4, **options)
    assert check_batch_invariance(layer, [torch.randn(n, 3) for n in lengths]).is_invariant


def test_as_many_steps_as_sequences_are_read_in_the_order_that_holds_alone():
    layer, sequences = padless.nn.LSTM(3, 4), [torch.randn(n, 3) for n in (3, 3, 3)]
    assert check_batch_invariance(layer, sequences, batch=pad_sequence).is_invariant


class OfNeighbours(nn.Module):
    def forward(self, x):
        return x + x.mean(1, keepdim=True)  # over the batch


def test_a_module_that_reads_other_sequences_is_found_whatever_its_shape_can_mean():
    sequences = [torch.randn(3, 3) for _ in range(3)]
    result = check_batch_invariance(OfNeighbours(), sequences, batch=pad_sequence, raise_exception=False)
    assert not result.is_invariant


class Stepped(nn.Module):
    """A loop over steps: the cell is called as often as the longest sequence has steps."""

    def __init__(self, reads_padding: bool):
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.reads_padding = reads_padding

    def forward(self, x, lengths):
        h = x.new_zeros(len(x), 4)
        for t in range(x.shape[1]):
            new = self.cell(x[:, t], h)
            h = new if self.reads_padding else torch.where((t < lengths)[:, None], new, h)
        return h


def test_the_models_own_output_is_compared_even_if_modules_are_called_once_a_step():
    result = check_batch_invariance(Stepped(False), SEQUENCES, batch=padded)
    assert result.compared == 1
    assert result.skipped == ("cell",)
    result = check_batch_invariance(Stepped(True), SEQUENCES, batch=padded, raise_exception=False)
    assert (result.module, result.kind) == ("", "Stepped")


class Returning(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x, lengths):
        return self.function(x, lengths)


def test_a_model_of_which_nothing_can_be_compared_does_not_pass():
    for function in (lambda x, lengths: x.sum(), lambda x, lengths: 1.5, lambda x, lengths: None):
        with pytest.raises(ValueError, match="could compare nothing"):
            check_batch_invariance(Returning(function), SEQUENCES, batch=padded, raise_exception=False)


@dataclass
class Result:
    loss: torch.Tensor
    last: torch.Tensor


def test_outputs_in_dataclasses_are_compared_and_scalars_are_said_not_to_be():
    model = Returning(lambda x, lengths: Result(x.sum(), x[range(len(x)), lengths - 1]))
    result = check_batch_invariance(model, SEQUENCES, batch=padded)
    assert result.compared == 1
    assert "1 outputs; not compared: Returning" in str(result)
    model = Returning(lambda x, lengths: Result(x.sum(), x[:, -1]))
    assert not check_batch_invariance(model, SEQUENCES, batch=padded, raise_exception=False).is_invariant


def test_a_list_of_one_tensor_per_sequence_is_compared():
    result = check_batch_invariance(
        Returning(lambda x, lengths: [row[:n] for row, n in zip(x, lengths, strict=True)]),
        SEQUENCES,
        batch=padded,
    )
    assert result.compared == 1
    result = check_batch_invariance(
        Returning(lambda x, lengths: list(x.mean(1))), SEQUENCES, batch=padded, raise_exception=False
    )
    assert not result.is_invariant


def test_both_parts_of_complex_outputs_are_compared():
    model = Returning(lambda x, lengths: torch.complex(x * 0, x.mean(1, keepdim=True).expand_as(x)))
    assert not check_batch_invariance(model, SEQUENCES, batch=padded, raise_exception=False).is_invariant


class InPlace(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x, lengths):
        y = self.linear(x)
        y -= y.mean(1, keepdim=True)
        return y


def test_a_change_in_place_is_not_blamed_on_the_module_before_it():
    result = check_batch_invariance(InPlace(), SEQUENCES, batch=padded, raise_exception=False)
    assert (result.module, result.kind) == ("", "InPlace")


def test_the_callers_sequences_are_not_changed_by_a_model_that_works_in_place():
    sequences = [torch.ones(n, 3) for n in (2, 1)]
    double = Returning(lambda several, _: [sequence.mul_(2) for sequence in several])
    check_batch_invariance(double, sequences, batch=lambda several: (several, None))
    assert all(torch.equal(sequence, torch.ones_like(sequence)) for sequence in sequences)


@pytest.mark.parametrize("tolerance", [float("nan"), -1.0])
def test_a_tolerance_that_is_no_bound_is_refused(tolerance):
    with pytest.raises(ValueError, match="tolerance must be 0 or more, got"):
        check_batch_invariance(Model(False), SEQUENCES, batch=padded, tolerance=tolerance)


class Tagger(torch.nn.Module):
    """A layer on the rows of a `PackedSequence`, which stand in the order of time."""

    def __init__(self):
        super().__init__()
        self.rnn, self.head = torch.nn.GRU(4, 6), torch.nn.Linear(6, 2)

    def forward(self, packed):
        output, _ = self.rnn(packed)
        return output._replace(data=self.head(output.data))


def test_rows_in_the_order_of_time_are_compared_with_those_alone():
    given = [torch.randn(n, 4) for n in (3, 1, 5, 3)]
    pack = partial(torch.nn.utils.rnn.pack_sequence, enforce_sorted=False)
    result = check_batch_invariance(Tagger(), given, batch=pack, tolerance=1e-5)
    assert result.is_invariant and result.compared >= 3 and not result.skipped


def test_sequences_may_be_what_only_the_batch_function_can_read():
    given = [numpy.ones((3, 4), "f"), numpy.ones((1, 4), "f")]
    result = check_batch_invariance(
        torch.nn.Linear(4, 2), given, batch=lambda s: pad_sequence([torch.as_tensor(q) for q in s], True)
    )
    assert result.is_invariant
