"""Plans of batches: what must hold for any lengths and options, against plain loops that share no code with them."""

from __future__ import annotations

import math
import warnings
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from padless import LengthsError
from padless._planning import POLICIES, plan

Plans = list[list[list[int]]]


@st.composite
def cases(draw: st.DrawFn, *, policies: tuple[str, ...] = POLICIES) -> tuple[list[int], dict[str, Any]]:
    """Lengths, and options that go with them: pools from a single step to all of it, giants, zeros, ties."""
    world_size = draw(st.integers(1, 4))
    length = st.one_of(st.integers(0, 4), st.integers(0, 40), st.just(200))
    lengths = draw(st.lists(length, min_size=world_size, max_size=60))
    options: dict[str, Any] = {
        "policy": draw(st.sampled_from(policies)),
        "world_size": world_size,
        "seed": draw(st.integers(0, 2**70)),
        "epoch": draw(st.integers(0, 3)),
        "padded": draw(st.booleans()),
        "pool": draw(st.one_of(st.none(), st.integers(1, 70))),
    }
    if options["policy"] == "binpack" or draw(st.booleans()):
        options["tokens"] = draw(st.integers(1, 70))
    else:
        options["batch_size"] = draw(st.integers(1, 7))
    return lengths, options


def plans_of(lengths: list[int], options: dict[str, Any]) -> Plans:
    """The plan of every rank; a case that cannot be dealt is looked at by a test of its own."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "lengths.* is over tokens")
            return [plan(lengths, rank=rank, **options) for rank in range(options["world_size"])]
    except LengthsError as error:
        assume("cannot be dealt" not in str(error))
        raise


def cost(batch: list[int], lengths: list[int], *, padded: bool) -> int:
    """Rows of a batch, or cells of its grid; a sequence of length 0 counts as one row."""
    rows = [lengths[i] if lengths[i] > 0 else 1 for i in batch]
    return len(rows) * max(rows) if padded else sum(rows)


# ---- what every plan keeps --------------------------------------------------------------------------


@given(cases())
def test_every_index_comes_once_over_all_ranks(case):
    lengths, options = case
    plans = plans_of(lengths, options)
    assert sorted(i for batches in plans for batch in batches for i in batch) == list(range(len(lengths)))


@given(cases())
def test_every_rank_has_the_same_number_of_batches_and_none_is_empty(case):
    lengths, options = case
    plans = plans_of(lengths, options)
    assert len({len(batches) for batches in plans}) == 1
    assert all(batch for batches in plans for batch in batches)


@given(cases())
def test_no_batch_exceeds_its_budget_unless_it_is_one_sequence(case):
    lengths, options = case
    for batches in plans_of(lengths, options):
        for batch in batches:
            if "tokens" in options:
                fits = cost(batch, lengths, padded=options["padded"]) <= options["tokens"]
                assert fits or len(batch) == 1
            else:
                assert len(batch) <= options["batch_size"]


@given(cases())
def test_a_plan_follows_from_its_arguments(case):
    lengths, options = case
    assert plans_of(lengths, options) == plans_of(lengths, options)


@given(cases())
def test_a_batch_size_gives_the_fewest_batches(case):
    lengths, options = case
    assume("batch_size" in options)
    (steps,) = {len(batches) for batches in plans_of(lengths, options)}
    assert steps == math.ceil(len(lengths) / (options["batch_size"] * options["world_size"]))
