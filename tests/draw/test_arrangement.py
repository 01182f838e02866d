"""Positions of cells: against torch's own packing, and against the batch described step by step."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given

import padless
from padless import LengthsError
from padless.draw.arrangement import arrange

from .kit import EIGHT, drawable, order_of, small, steps_of


@given(small)
def test_order_and_batch_sizes_are_those_of_a_packed_sequence(lengths):
    packed = padless.rnn.pack_sequence([torch.zeros(n) for n in lengths], enforce_sorted=False)
    batch = arrange(lengths)
    assert list(batch.order) == packed.sorted_indices.tolist()
    assert [batch.size(step) for step in range(batch.steps)] == packed.batch_sizes.tolist()


@given(small)
def test_rows_hold_what_torch_s_packing_puts_there(lengths):
    rows = [torch.tensor([[i, step] for step in range(n)]).reshape(n, 2) for i, n in enumerate(lengths) if n]
    named = [i for i, n in enumerate(lengths) if n]
    packed = torch.nn.utils.rnn.pack_sequence(rows, enforce_sorted=False)
    batch = arrange([lengths[i] for i in named])
    for row, (index, step) in enumerate(packed.data.tolist()):
        assert batch.place(row) == (step, batch.order.index(named.index(index)))


@given(small)
def test_every_row_appears_exactly_once_in_packed_order(lengths):
    batch = arrange(lengths)
    expected = [(step, index) for step, running in enumerate(steps_of(lengths)) for index in running]
    places = [batch.place(row) for row in range(batch.numbers.rows)]
    assert [(step, batch.order[slot]) for step, slot in places] == expected
    assert [batch.row(step, slot) for step, slot in places] == list(range(len(expected)))


@given(small)
def test_equal_lengths_stay_in_the_caller_s_order(lengths):
    assert list(arrange(lengths).order) == order_of(lengths)


@given(drawable)
def test_runs_cover_every_step_once_and_count_every_row(lengths):
    batch = arrange(lengths)
    assert len(batch.runs) <= len(lengths)
    assert batch.runs[0].start == batch.runs[0].row == 0 and batch.runs[-1].stop == max(lengths)
    for run, after in zip(batch.runs, batch.runs[1:], strict=False):
        assert run.stop == after.start and run.size > after.size
        assert after.row == run.row + (run.stop - run.start) * run.size
    assert sum((run.stop - run.start) * run.size for run in batch.runs) == sum(lengths) == batch.numbers.rows


@given(drawable)
def test_bands_share_out_every_slot_once(lengths):
    batch = arrange(lengths)
    bands = batch.bands(7)
    assert len(bands) <= 7
    assert [slot for band in bands for slot in range(band.start, band.stop)] == list(range(len(lengths)))
    for band in bands:
        inside = batch.lengths[band.start : band.stop]
        assert (band.longest, band.shortest) == (max(inside), min(inside))


def test_a_billion_steps_are_a_few_runs():
    batch = arrange([10**9, 5, 10**8])
    assert [(run.stop, run.size) for run in batch.runs] == [(5, 3), (10**8, 2), (10**9, 1)]
    assert batch.row(10**9 - 1, 0) == batch.numbers.rows - 1


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([], "all lengths are 0, so there is nothing to draw"),
        ([0, 0], "all lengths are 0, so there is nothing to draw"),
        ([3, -1], "lengths[1] = -1 is negative"),
        ([3, 1.5], "lengths[1] = 1.5 is not a whole number"),
        ([2**63], f"lengths[0] = {2**63} does not fit into 64 bits"),
        (
            [1] * 1_000_001,
            "lengths has 1,000,001 sequences, but a picture shows at most 1,000,000: draw one batch of them",
        ),
    ],
    ids=["none", "all 0", "negative", "not whole", "huge", "too many"],
)
def test_what_cannot_be_drawn_is_said(lengths, message):
    with pytest.raises(LengthsError) as caught:
        arrange(lengths)
    assert str(caught.value) == message


def test_numbers_are_those_of_waste():
    assert arrange(EIGHT).numbers == padless.waste(EIGHT)
