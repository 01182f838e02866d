"""Plans of batches: what must hold for any lengths and options, against plain loops that share no code with them."""

from __future__ import annotations

import math
import tracemalloc
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from padless import LengthsError, waste
from padless.data import LengthBatchSampler
from padless.planning import POLICIES, Planner, PoolStarts, batches, plan, rule_of

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
    """The plan of every rank; a case that cannot be distributed is looked at by a test of its own."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "lengths.* is over tokens")
            return [plan(lengths, rank=rank, **options) for rank in range(options["world_size"])]
    except LengthsError as error:
        assume("cannot be distributed" not in str(error))
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
    for found in plans_of(lengths, options):
        for batch in found:
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


@given(cases(), st.integers(0, 30))
def test_batches_from_the_middle_are_those_of_the_whole(case, start):
    lengths, options = case
    undisturbed = plans_of(lengths, options)[0]
    seed, epoch, pool = (options.pop(name) for name in ("seed", "epoch", "pool"))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "lengths.* is over tokens")
        rule = rule_of(**{"batch_size": None, "tokens": None, **options})
        planner = Planner(lengths, rule, seed=seed, pool=pool)
    assert planner.batch_count(epoch) == len(undisturbed)
    starts = PoolStarts()
    for _ in range(2):  # the second time the pools are known
        drawn = [batch.tolist() for batch in planner.batches(epoch, 0, start, starts)]
        assert drawn == undisturbed[start:]
    assert planner.batch_count(epoch, starts) == len(undisturbed)


@given(cases(), st.integers(1, 4))
def test_only_sequences_that_are_alone_in_their_batch_may_not_go_round(case, world_size):
    lengths, options = case
    options["world_size"] = world_size
    assume(len(lengths) >= world_size)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "lengths.* is over tokens")
            plan(lengths, **options)
    except LengthsError:
        assert len(lengths) % world_size
        if "tokens" in options:
            # In a pool that takes the odd ones, fewer could be put together than are over.
            options.update(world_size=1, pool=None)
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "lengths.* is over tokens")
                assert any(len(batch) == 1 for batch in plan(lengths, **options))
        else:
            assert options["batch_size"] == 1


# ---- randomness -----------------------------------------------------------------------------------------


def test_seeds_and_epochs_give_other_batches():
    lengths = list(range(100))
    for policy in ("random", "bucket", "binpack"):
        plans = [
            plan(lengths, tokens=200, policy=policy, seed=seed, epoch=epoch)
            for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]
        ]
        assert len({str(batches) for batches in plans}) == 4


def test_the_seed_does_not_matter_where_nothing_is_random():
    lengths = [3, 1, 2, 3, 0]
    assert plan(lengths, batch_size=2, policy="sorted", seed=1, epoch=2) == [[0, 3], [2, 1], [4]]


def test_every_order_of_a_random_epoch_is_as_likely_as_another():
    counts = Counter(str(plan([5, 1, 9], batch_size=1, seed=seed)) for seed in range(1200))
    expected = 1200 / 6
    assert len(counts) == 6
    # Chi-squared with 5 degrees of freedom is above 25.7 once in ten thousand times; seeds are fixed.
    assert sum((count - expected) ** 2 / expected for count in counts.values()) < 25.7


GOLDEN = {
    "random": [[3, 8, 1], [5, 9]],
    "bucket": [[7, 2], [6, 4], [5, 8]],
    "sorted": [[2, 7], [6, 0], [5, 8]],
    "binpack": [[7, 2], [6, 1, 5]],
}


def test_plans_stay_as_they_are_on_every_machine_and_under_every_version():
    lengths = [4, 6, 8, 5, 4, 3, 7, 8, 0, 12]
    found = {
        policy: plan(lengths, tokens=16, policy=policy, seed=7, epoch=1, world_size=2, rank=1, pool=6)
        for policy in POLICIES
    }
    assert found == GOLDEN


# ---- what plans are worth -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lognormal() -> np.ndarray:
    return np.clip(np.random.default_rng(0).lognormal(np.log(70), 0.7, 40_000), 1, 1000).astype(np.uint16)


def test_buckets_of_32_are_filled_to_85_per_cent(lognormal):
    found = [lognormal[batch] for batch in batches(lognormal, batch_size=32, policy="bucket")]
    assert lognormal.sum() / sum(int(n.max()) * len(n) for n in found) >= 0.85


def test_bins_of_4096_rows_are_filled_to_97_per_cent(lognormal):
    found = plan(lognormal, tokens=4096, policy="binpack")
    assert lognormal.sum() / (len(found) * 4096) >= 0.97


@pytest.mark.parametrize("budget", [{"batch_size": 32}, {"tokens": 4096}], ids=str)
def test_four_ranks_at_random_wait_for_one_another_less_than_one_per_cent(budget, lognormal):
    plans = [list(batches(lognormal, world_size=4, rank=rank, **budget)) for rank in range(4)]
    rows = np.array([[int(lognormal[batch].sum()) for batch in batches] for batches in plans])
    assert 1 - rows.sum() / (4 * rows.max(0).sum()) <= 0.01


def test_ranks_take_turns_with_the_longest_sequence(lognormal):
    plans = [list(batches(lognormal, batch_size=8, world_size=4, rank=rank)) for rank in range(4)]
    longest = np.array([[int(lognormal[batch].max()) for batch in batches] for batches in plans])
    assert np.bincount(longest.argmax(0)).min() > 0.2 * longest.shape[1]


def test_padded_batches_of_a_step_hold_sequences_of_about_the_same_length(lognormal):
    cells = {}
    for padded in (False, True):
        options: dict[str, Any] = {"batch_size": 32, "world_size": 4, "padded": padded}
        plans = [batches(lognormal, rank=rank, **options) for rank in range(4)]
        cells[padded] = sum(len(batch) * int(lognormal[batch].max()) for found in plans for batch in found)
    assert cells[True] < 0.7 * cells[False]


def test_a_sequence_over_the_budget_shares_its_step_with_others_like_it():
    lengths = [90, 5, 5, 5, 5, 80, 5, 5, 5, 5]
    with pytest.warns(UserWarning, match="is over tokens=10"):
        plans = [plan(lengths, tokens=10, policy="binpack", world_size=2, rank=rank) for rank in (0, 1)]
    assert [0] in plans[0] + plans[1] and [5] in plans[0] + plans[1]
    assert plans[0].index([0] if [0] in plans[0] else [5]) == plans[1].index([0] if [0] in plans[1] else [5])


def test_batches_of_a_step_are_not_dealt_anew_where_the_longest_would_grow():
    lengths = [3, 3, 2, 2, 2]  # longest first to the least loaded, these would be 5 and 7 rows
    plans = [plan(lengths, tokens=7, policy="sorted", world_size=2, rank=rank) for rank in (0, 1)]
    assert [[sum(lengths[i] for i in batch) for batch in batches] for batches in plans] == [[6], [6]]


def test_memory_is_that_of_a_pool():
    lengths = np.full(5_000_000, 7, np.uint8)
    tracemalloc.start()
    try:
        drawn = sum(len(batch) for batch in batches(lengths, batch_size=512, policy="bucket"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert drawn == len(lengths)
    assert peak < len(lengths) * 5  # an index of each would be 40 MB


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_every_epoch_can_be_planned_if_one_can(policy, padded):
    """8 short sequences somewhere in 10 pools; the remainder of 3 takes two of them, or more if padded."""
    lengths = [100] * 315 + [10] * 8
    options: dict[str, Any] = {"tokens": 110, "policy": policy, "padded": padded, "world_size": 8, "pool": 32}
    for epoch in range(6):
        plans = plans_of(lengths, {**options, "epoch": epoch})
        assert sorted(i for batches in plans for batch in batches for i in batch) == list(range(len(lengths)))
        assert {len(batches) for batches in plans} == {320 // 8}
        rule = rule_of(batch_size=None, policy=policy, padded=padded, tokens=110, world_size=8)
        planner = Planner(lengths, rule, pool=32)
        starts = PoolStarts()
        assert planner.batch_count(epoch, starts) == 40 and starts.last() == (10, 40)
        assert [batch.tolist() for batch in planner.batches(epoch, 0, 30, starts)] == plans[0][30:]


@pytest.mark.parametrize("policy", ["bucket", "random", "sorted"])
def test_what_a_policy_cannot_deal_is_packed_if_it_fits(policy):
    lengths = [
        8,
        17,
        17,
        21,
        28,
        34,
        35,
    ]  # [35, 8], [28, 17], [21, 17] and [34], but no four runs of neighbours
    ranks = [plan(lengths, tokens=45, policy=policy, world_size=4, rank=rank) for rank in range(4)]
    assert sorted(i for batches in ranks for batch in batches for i in batch) == list(range(7))
    assert [len(batches) for batches in ranks] == [len(ranks[0])] * 4
    assert all(sum(lengths[i] for i in batch) <= 45 for batches in ranks for batch in batches)


def test_warnings_of_lengths_over_the_budget_point_to_the_caller():
    lengths = [5, 9]
    for call in (
        lambda: plan(lengths, tokens=6),
        lambda: list(batches(lengths, tokens=6)),
        lambda: LengthBatchSampler(lengths, tokens=6),
        lambda: waste(lengths, tokens=6, policy="random"),
    ):
        with pytest.warns(UserWarning, match=r"lengths\[1\] = 9 is over tokens=6") as caught:
            call()
        assert [warning.filename for warning in caught] == [__file__]
