"""What plans take as lengths, and who is named when lengths or options make no sense."""

from __future__ import annotations

import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from padless import LengthsError
from padless.planning import batches, plan
from padless.planning.checks import as_lengths

LENGTHS = [4, 6, 8, 5, 4, 3, 7, 8]


@pytest.mark.parametrize(
    "lengths",
    [
        tuple(LENGTHS),
        iter(LENGTHS),
        [float(n) for n in LENGTHS],
        [Fraction(n) for n in LENGTHS],
        [np.int16(n) for n in LENGTHS],
        np.array(LENGTHS, np.uint8),
        np.array(LENGTHS, np.float32),
        np.array(LENGTHS, np.float16),
        torch.tensor(LENGTHS),
        torch.tensor(LENGTHS, dtype=torch.bfloat16),
        torch.tensor(LENGTHS, dtype=torch.float64, requires_grad=True),
        list(torch.tensor(LENGTHS)),
    ],
    ids=lambda lengths: f"{type(lengths).__name__}-{getattr(lengths, 'dtype', '')}",
)
def test_lengths_of_every_kind_are_planned_alike(lengths):
    assert plan(lengths, tokens=16, policy="binpack") == plan(LENGTHS, tokens=16, policy="binpack")


def test_lengths_in_a_file_are_read_where_they_lie(tmp_path):
    np.array(LENGTHS, np.uint16).tofile(tmp_path / "lengths")
    mapped = np.memmap(tmp_path / "lengths", np.uint16, "r")
    assert np.shares_memory(as_lengths(mapped).values, mapped)
    assert plan(mapped, batch_size=3) == plan(LENGTHS, batch_size=3)


BAD_LENGTHS = [
    ([4, -1, -2], "lengths[1] = -1 is negative"),
    ([4, 2.5], "lengths[1] = 2.5 is not a whole number"),
    ([4, float("nan")], "lengths[1] = nan is not a whole number"),
    ([4.0, -3.0], "lengths[1] = -3 is negative"),
    ([4, True], "lengths[1] = True is not a whole number"),
    (np.array([True]), "lengths[0] = True is not a whole number"),
    ([1, "2"], "lengths[1] must be a whole number, got str"),
    ([1, None], "lengths[1] must be a whole number, got NoneType"),
    ("123", "lengths must be whole numbers, got str"),
    (7, "lengths must be a sequence of whole numbers, got int"),
    (np.zeros((2, 3)), "lengths must be one-dimensional, (B,), got shape (2, 3)"),
    (torch.tensor(3), "lengths must be one-dimensional, (B,), got shape ()"),
    ([1, 2**70], "lengths[1] = 1180591620717411303424 is too large: the sum overflows"),
    ([2**62, 2**62], "lengths[0] = 4611686018427387904 is too large: the sum overflows"),
    ([1.0, 1e300], "lengths[1] = 1e+300 is too large: the sum overflows"),
    (
        np.array([1, 2**63], np.uint64),
        "lengths[1] = 9223372036854775808 is too large: the sum overflows",
    ),
]


@pytest.mark.parametrize(("lengths", "message"), BAD_LENGTHS, ids=[message for _, message in BAD_LENGTHS])
def test_bad_lengths_are_told_by_the_first_culprit(lengths, message):
    with pytest.raises(LengthsError) as caught:
        plan(lengths, batch_size=2)
    assert str(caught.value) == message


def test_numbers_near_the_end_of_int64_are_planned():
    lengths = [2**60, 2**60, 0]
    for policy in ("random", "bucket", "sorted", "binpack"):
        for padded in (False, True):
            assert sorted(map(len, plan(lengths, tokens=10**30, policy=policy, padded=padded))) == [3]
            with pytest.warns(UserWarning, match="is over tokens"):
                assert len(plan(lengths, tokens=2**59, policy=policy, padded=padded)) == 3
    halves = [plan(lengths, batch_size=2, world_size=2, rank=rank)[0] for rank in (0, 1)]
    assert sorted(map(sorted, halves)) in ([[0, 2], [1]], [[0], [1, 2]])


def test_lists_of_unequal_lists_are_no_lengths():
    with pytest.raises(LengthsError, match=r"^lengths\[0\] must be a whole number, got list$"):
        plan([[1], [2, 3]], batch_size=2)


BAD_OPTIONS: list[tuple[list[int], dict[str, Any], str]] = [
    ([1], {}, "give either batch_size or tokens, got neither"),
    ([1], {"batch_size": 1, "tokens": 1}, "give either batch_size or tokens, got both"),
    ([1], {"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
    (
        [1],
        {"batch_size": torch.tensor(1.5)},
        "batch_size must be a whole number of at least 1, got tensor(1.5000)",
    ),
    (
        [1],
        {"batch_size": torch.tensor(True)},
        "batch_size must be a whole number of at least 1, got tensor(True)",
    ),
    ([1], {"batch_size": np.array([2])}, "batch_size must be a whole number of at least 1, got array([2])"),
    ([1], {"batch_size": 1, "padded": "no"}, "padded must be True or False, got 'no'"),
    ([1], {"tokens": 1.5}, "tokens must be a whole number of at least 1, got 1.5"),
    ([1], {"tokens": 1, "seed": -1}, "seed must be a whole number of at least 0, got -1"),
    ([1], {"tokens": 1, "epoch": None}, "epoch must be a whole number of at least 0, got None"),
    ([1], {"tokens": 1, "pool": 0}, "pool must be a whole number of at least 1, got 0"),
    ([1], {"tokens": 1, "world_size": 0}, "world_size must be a whole number of at least 1, got 0"),
    ([1], {"tokens": 1, "rank": 1}, "rank must be below world_size=1, got 1"),
    (
        [1],
        {"tokens": 1, "policy": "buckets"},
        (
            "policy must be one of 'random', 'bucket', 'sorted', 'binpack', got 'buckets'; "
            "did you mean 'bucket'?"
        ),
    ),
    ([1], {"batch_size": 1, "policy": "binpack"}, "policy 'binpack' fills rows: give tokens, not batch_size"),
    ([], {"batch_size": 1}, "lengths has 0 sequences for world_size=1: every rank needs at least one"),
    (
        [1, 1],
        {"batch_size": 1, "world_size": 3},
        "lengths has 2 sequences for world_size=3: every rank needs at least one",
    ),
    (
        [1] * 5,
        {"batch_size": 1, "world_size": 2},
        (
            "5 sequences cannot be distributed evenly over world_size=2 with batch_size=1: leave out 1, or "
            "raise batch_size"
        ),
    ),
    (
        [4] * 7,
        {"tokens": 7, "world_size": 4},
        (
            "3 of the sequences cannot be distributed over world_size=4 with tokens=7: too few were found that "
            "fit together, and ranks would have different numbers of batches; leave out 3, or raise tokens"
        ),
    ),
]


@pytest.mark.parametrize(("lengths", "options", "message"), BAD_OPTIONS, ids=[bad[-1] for bad in BAD_OPTIONS])
def test_options_that_make_no_sense_are_named(lengths, options, message):
    with pytest.raises(ValueError) as caught:
        plan(lengths, **options)
    assert str(caught.value) == message


def test_arguments_are_checked_before_the_first_batch_is_asked_for():
    with pytest.raises(ValueError, match="give either"):
        batches([1, 2])


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([1, 9], "lengths[1] = 9 is over tokens=5: it is a batch of its own"),
        ([1, 9, 8], "lengths[1] = 9 is over tokens=5: it is a batch of its own, and so is 1 other"),
        ([6, 1, 9, 8], "lengths[0] = 6 is over tokens=5: it is a batch of its own, and so are 2 others"),
    ],
)
def test_sequences_over_the_budget_are_told_with_the_first_of_them(lengths, message):
    for make in (plan, batches):
        with pytest.warns(UserWarning) as caught:
            make(lengths, tokens=5)
        assert [str(warning.message) for warning in caught] == [message]
    assert caught[0].filename == __file__


def test_planning_needs_no_torch():
    code = (
        "import sys; from padless.data import plan; plan([3, 1], tokens=3); assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_warning_names_the_caller_s_file() -> None:
    for call in (plan, batches):
        with pytest.warns(UserWarning, match="over tokens=4") as found:
            call([9, 1, 1], tokens=4)
        assert found[0].filename == __file__
