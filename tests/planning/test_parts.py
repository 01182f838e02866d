"""The parts of planning: orders that need not be held, cuts, bins and dealing, against plain loops."""

from __future__ import annotations

import heapq
import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from padless.planning import checks, order
from padless.planning.checks import as_lengths
from padless.planning.cut import best_fit, cut_cells, cut_rows, split_evenly
from padless.planning.deal import deal_longest_first


@pytest.fixture
def in_blocks(monkeypatch):
    """Orders computed block by block, as those of many millions are."""
    monkeypatch.setattr(order, "_AT_ONCE", 0)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 17, 100, 101, 9_999, 40_000])
def test_an_order_in_blocks_is_a_permutation_of_which_any_block_can_be_had(count, in_blocks):
    shuffle = order.Shuffle(count, 3, 1)
    whole = shuffle.block(0, count)
    assert sorted(whole.tolist()) == list(range(count))
    assert (shuffle.block(count // 3, count // 2) == whole[count // 3 : count // 2]).all()
    assert count < 100 or (order.Shuffle(count, 4, 1).block(0, count) != whole).any()


def test_places_and_neighbours_in_an_order_in_blocks_are_uniform(in_blocks):
    count, seeds = 23, 4000
    places, neighbours = np.zeros((count, count)), np.zeros((count, count))
    for seed in range(seeds):
        shuffled = order.Shuffle(count, seed, 0).block(0, count)
        places[np.arange(count), shuffled] += 1
        neighbours[shuffled[:-1], shuffled[1:]] += 1
    expected = seeds / count
    assert ((places - expected) ** 2 / expected).sum() / (count - 1) ** 2 == pytest.approx(1, abs=0.25)
    apart = neighbours[~np.eye(count, dtype=bool)]
    assert ((apart - expected) ** 2 / expected).sum() / (count * (count - 1)) == pytest.approx(1, abs=0.25)


def test_orders_stay_as_they_are_on_every_machine_and_under_every_version(in_blocks):
    assert order.raw_bits(2, 2**65, 3).tolist() == [5018745666716575024, 15854142474356530684]
    assert order.shuffled(8, 7, 1).tolist() == [1, 4, 3, 2, 6, 5, 0, 7]
    assert order.Shuffle(12, 7, 1).block(0, 12).tolist() == [6, 9, 7, 4, 2, 3, 11, 10, 8, 1, 5, 0]


# ---- against plain loops ----------------------------------------------------------------------------------

costs = st.lists(st.integers(1, 30), min_size=1, max_size=40)


@given(costs, st.integers(1, 60), st.booleans(), st.booleans())
def test_cuts_take_as_many_sequences_as_fit(costs, budget, padded, falling):
    if falling:
        costs = sorted(costs, reverse=True)
    bounds = [0]
    for place in range(1, len(costs)):
        more = costs[bounds[-1] : place + 1]
        if (len(more) * max(more) if padded else sum(more)) > budget:
            bounds.append(place)
    cut = cut_cells if padded else cut_rows
    assert cut(np.array(costs), budget).tolist() == [*bounds, len(costs)]


@given(costs, st.integers(1, 60))
def test_best_fit_is_that_of_a_loop_over_all_batches(costs, budget):
    costs = sorted(costs, reverse=True)
    bins: list[list[int]] = []
    for cost in costs:
        fitting = [members for members in bins if sum(members) + cost <= budget]
        if fitting:
            max(fitting, key=sum).append(cost)
        else:
            bins.append([cost])
    places, bounds = best_fit(np.array(costs), budget)
    found = [[costs[i] for i in places[start:stop]] for start, stop in pairwise(bounds)]
    # Which of two equally full batches takes a sequence is open; how full all are in the end is not.
    assert list(map(sum, found)) == sorted(map(sum, bins), reverse=True)
    assert sorted(places.tolist()) == list(range(len(costs)))


@given(st.lists(costs, min_size=1, max_size=5), st.integers(1, 5), st.integers(1, 9))
def test_dealing_is_that_of_a_heap_of_ranks(steps, ranks, most):
    steps = [step[: ranks * most] for step in steps]
    expected = []
    for number, step in enumerate(steps):
        heap = [(0, rank, 0) for rank in range(ranks)]
        chosen = {}
        for place in sorted(range(len(step)), key=lambda place: -step[place]):
            load, rank, count = heapq.heappop(heap)
            chosen[place] = number * ranks + rank
            if count + 1 < most:
                heapq.heappush(heap, (load + step[place], rank, count + 1))
        expected += [chosen[place] for place in range(len(step))]
    bounds = np.append(0, np.cumsum([len(step) for step in steps]))
    together = np.array([cost for step in steps for cost in step])
    assert deal_longest_first(together, bounds, ranks, most).tolist() == expected


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(1, 6))
def test_splitting_adds_as_few_bounds_as_will_do(counts, parts):
    bounds = np.append(0, np.cumsum(counts))
    found = split_evenly(bounds, parts)
    wanted = math.ceil(len(counts) / parts) * parts
    if wanted > sum(counts):
        assert found is None
    else:
        assert found is not None and len(found) - 1 == wanted
        assert set(bounds.tolist()) <= set(found.tolist()) and (np.diff(found) > 0).all()


@given(st.lists(st.integers(0, 2**20), min_size=1, max_size=50), st.integers(1, 60))
def test_longest_first_in_any_room_is_a_stable_sort(lengths, room):
    blocks = list(order.longest_first(as_lengths(lengths), room))
    assert np.concatenate(blocks).tolist() == sorted(range(len(lengths)), key=lambda i: -lengths[i])


@pytest.mark.parametrize("chunk", [3, 1 << 20])
@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.integers(0, 25))
def test_the_shortest_are_the_start_of_a_stable_sort(chunk, lengths, count):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checks, "_CHUNK", chunk)
        found = order.shortest(as_lengths(np.array(lengths, np.uint8)), count)
    assert found.tolist() == sorted(range(len(lengths)), key=lambda i: lengths[i])[:count]
