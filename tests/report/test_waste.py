"""Counting what padding costs: the literal numbers, and plain loops that share no code with it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from fractions import Fraction
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import padless
from padless import LengthsError, Waste, waste
from padless.data import plan
from padless.report import Count, waste_table

from .. import strategies

LENGTHS = [4, 6, 8, 5, 4, 3, 7, 8]
HUGE = 2**61 + 1  # no float holds it


def batches_of(lengths: list[int], batch_size: int) -> list[list[int]]:
    batches: list[list[int]] = []
    for length in lengths:
        if not batches or len(batches[-1]) == batch_size:
            batches.append([])
        batches[-1].append(length)
    return batches


def cells_of(batch: list[int]) -> int:
    """Cells of a padded grid, counted one by one."""
    longest = 0
    for length in batch:
        if length > longest:
            longest = length
    return sum(1 for _ in batch for _ in range(longest))


# ---- the literal numbers ------------------------------------------------------------------------------


def test_eight_sequences_need_45_rows_of_64_cells():
    numbers = waste(LENGTHS)
    assert (numbers.rows, numbers.cells, numbers.sequences) == (45, 64, 8)
    assert numbers.fill == 45 / 64
    assert numbers.wasted_percent == 100 * (1 - 45 / 64)
    assert str(numbers) == "45 rows of 64 cells: 29.7 % wasted, 8 sequences in 1 batch"


def test_a_6_by_9_grid_needs_32_of_54_multiplications_and_26_of_48_additions():
    product = waste([9, 8, 6, 4, 3, 2]).product(1)
    assert product.multiplications == (32, 54)
    assert product.additions == (26, 48)
    assert (product.multiplications.saved, product.additions.saved) == (22, 22)


def test_a_policy_is_named_in_the_order_of_its_batches():
    assert [batch.cells for batch in waste(LENGTHS, batch_size=4).batches] == [32, 32]
    assert [batch.cells for batch in waste(LENGTHS, batch_size=4, policy="sorted").batches] == [32, 20]


def test_a_waste_of_one_sequence_is_reported_in_the_singular():
    assert str(waste([3])) == "3 rows of 3 cells: 0.0 % wasted, 1 sequence in 1 batch"
    assert (
        str(waste([1000] * 3, batch_size=2))
        == "3,000 rows of 3,000 cells: 0.0 % wasted, 3 sequences in 2 batches"
    )


# ---- against plain loops ------------------------------------------------------------------------------


@given(strategies.lengths(), st.integers(1, 9))
def test_rows_and_cells_are_those_that_a_loop_counts(lengths, batch_size):
    numbers = waste(lengths, batch_size=batch_size)
    batches = batches_of(lengths, batch_size)
    assert [(b.sequences, b.rows, b.cells) for b in numbers.batches] == [
        (len(batch), sum(batch), cells_of(batch)) for batch in batches
    ]
    assert numbers.rows == sum(lengths)
    assert numbers.cells == sum(map(cells_of, batches))
    assert numbers.sequences == len(lengths)


@given(strategies.lengths(), st.integers(1, 4))
def test_multiplications_and_additions_are_those_that_a_loop_does(lengths, width):
    def count(steps: int) -> tuple[int, int]:
        multiplications = additions = 0
        started = False
        for _ in range(steps * width):
            multiplications += 1
            additions += started
            started = True
        return multiplications, additions

    longest = max(lengths, default=0)
    needed, padded = [count(n) for n in lengths], [count(longest) for _ in lengths]
    product = waste(lengths).product(width)
    assert product.multiplications == (sum(m for m, _ in needed), sum(m for m, _ in padded))
    assert product.additions == (sum(a for _, a in needed), sum(a for _, a in padded))


@pytest.mark.parametrize(("cell", "twin"), [("rnn", "RNN"), ("lstm", "LSTM"), ("gru", "GRU")])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
def test_a_row_costs_twice_the_weights_that_it_meets(cell, twin, bidirectional, num_layers):
    layer = getattr(torch.nn, twin)(5, 7, num_layers, bias=False, bidirectional=bidirectional)
    a_row = 2 * sum(weight.numel() for weight in layer.parameters())  # each weight: a product and a sum
    numbers = waste(LENGTHS)
    options: dict[str, Any] = {"num_layers": num_layers, "bidirectional": bidirectional}
    assert numbers.flops(cell, 5, 7, **options) == (45 * a_row, 64 * a_row)
    assert numbers.flops(cell.upper(), 5, 7, training=True, **options) == (3 * 45 * a_row, 3 * 64 * a_row)


# ---- the policies of plan ------------------------------------------------------------------------------

plans = st.fixed_dictionaries(
    {"policy": st.sampled_from(["random", "bucket", "sorted"]), "seed": st.integers(0, 3)},
) | st.fixed_dictionaries({"policy": st.just("sorted")})
budgets = st.fixed_dictionaries({"batch_size": st.integers(1, 9)}) | st.fixed_dictionaries(
    {"tokens": st.integers(1, 40), "padded": st.booleans()}
)


@pytest.mark.filterwarnings("ignore:lengths:UserWarning")
@given(strategies.lengths(min_batch=1), plans, budgets)
def test_batches_of_a_policy_are_those_of_plan(lengths, options, budget):
    expected = plan(lengths, **options, **budget)
    assert [(b.sequences, b.rows, b.steps, b.cells) for b in waste(lengths, **options, **budget).batches] == [
        (len(batch), sum(rows), max(rows), cells_of(rows))
        for batch in expected
        if (rows := [lengths[i] for i in batch])
    ]


@pytest.mark.filterwarnings("ignore:lengths:UserWarning")
@given(strategies.lengths(min_batch=1), st.integers(1, 40), st.integers(0, 3))
def test_sequences_that_binpack_puts_together_share_one_line_of_the_budget(lengths, tokens, seed):
    numbers = waste(lengths, policy="binpack", tokens=tokens, seed=seed)
    expected = [[lengths[i] for i in b] for b in plan(lengths, policy="binpack", tokens=tokens, seed=seed)]
    assert [(b.sequences, b.rows) for b in numbers.batches] == [(len(rows), sum(rows)) for rows in expected]
    assert [b.cells for b in numbers.batches] == [max(tokens, *rows) for rows in expected]
    assert numbers.product(3).additions.padded == sum(3 * max(tokens, *rows) - 1 for rows in expected)


@given(strategies.lengths(), st.integers(1, 40), st.booleans())
def test_in_the_order_given_a_batch_takes_what_its_budget_holds(lengths, tokens, padded):
    batches: list[list[int]] = []
    for length in lengths:
        fuller = [*batches[-1], length] if batches else []
        cost = len(fuller) * max(1, *fuller, 1) if padded else sum(max(n, 1) for n in fuller)
        if fuller and cost <= tokens:
            batches[-1] = fuller
        else:
            batches.append([length])
    numbers = waste(lengths, tokens=tokens, padded=padded)
    assert [(b.sequences, b.rows, b.cells) for b in numbers.batches] == [
        (len(batch), sum(batch), cells_of(batch)) for batch in batches
    ]


@pytest.mark.parametrize("policy", ["random", "bucket", "sorted", "binpack"])
def test_no_sequences_give_no_batches_under_any_policy(policy):
    assert waste([], policy=policy, tokens=5) == Waste((), 0, 0)


def test_a_sequence_over_the_budget_is_warned_of():
    with pytest.warns(UserWarning, match="is over tokens=5: it is a batch of its own"):
        numbers = waste([4, 9], policy="binpack", tokens=5)
    assert [batch.cells for batch in numbers.batches] in ([5, 9], [9, 5])


def test_without_a_size_all_sequences_are_one_batch_under_any_policy():
    assert waste(LENGTHS, policy="bucket") == waste(LENGTHS)


def test_a_batch_has_products_and_flops_of_its_own():
    numbers = waste(LENGTHS, batch_size=3)
    flops = [batch.flops("gru", 3, 5, num_layers=2, training=True) for batch in numbers.batches]
    assert (
        sum(count.padded for count in flops) == numbers.flops("gru", 3, 5, num_layers=2, training=True).padded
    )
    products = [batch.product(7) for batch in numbers.batches]
    assert sum(product.additions.needed for product in products) == numbers.product(7).additions.needed


# ---- properties ---------------------------------------------------------------------------------------

policies = st.sampled_from(["given", "random", "bucket", "sorted"])


@given(strategies.lengths(), st.integers(1, 9), policies)
def test_no_policy_changes_what_is_needed(lengths, batch_size, policy):
    numbers = waste(lengths, batch_size=batch_size, policy=policy)
    assert numbers.rows == sum(lengths) <= numbers.cells
    assert 0 <= numbers.fill <= 1
    assert numbers.wasted_percent == 100 * (1 - numbers.fill)


@given(strategies.lengths(min_batch=1), st.integers(1, 4), st.sampled_from(["given", "random"]))
def test_sorting_full_batches_never_wastes_more_than_another_order(lengths, batch_size, policy):
    lengths = lengths * batch_size  # a last batch that is not full may be better filled with a giant
    least = waste(lengths, batch_size=batch_size, policy="sorted").cells
    assert least <= waste(lengths, batch_size=batch_size, policy=policy).cells


@given(strategies.lengths())
def test_batches_of_one_waste_nothing(lengths):
    assert waste(lengths, batch_size=1).wasted_percent == 0


def test_random_batches_follow_from_the_seed():
    lengths = list(range(100))
    once, again, other = (waste(lengths, batch_size=9, policy="random", seed=seed) for seed in (1, 1, 2))
    assert once == again != other


def test_the_caller_s_list_is_left_in_its_order():
    lengths = list(LENGTHS)
    for policy in ("sorted", "random"):
        waste(lengths, policy=policy)
    assert lengths == LENGTHS


# ---- zero, nothing, and very much ---------------------------------------------------------------------


def test_an_empty_sequence_stands_in_the_grid_and_needs_nothing():
    numbers = waste([3, 0])
    assert (numbers.rows, numbers.cells) == (3, 6)
    assert numbers.product(2) == ((6, 12), (5, 10))


@pytest.mark.parametrize("lengths", [[], [0], [0, 0]])
def test_where_there_are_no_cells_nothing_is_wasted(lengths):
    numbers = waste(lengths)
    assert (numbers.rows, numbers.cells, numbers.fill, numbers.wasted_percent) == (0, 0, 1.0, 0.0)
    assert numbers.sequences == len(lengths)
    assert numbers.product(3) == ((0, 0), (0, 0))
    assert numbers.flops("gru", 2, 3) == (0, 0)


def test_no_sequences_make_no_batch():
    assert waste([]).batches == ()
    assert waste([], batch_size=4).batches == ()


def test_integers_that_no_float_holds_are_counted_exactly():
    numbers = waste([HUGE, HUGE - 1])
    assert (numbers.rows, numbers.cells) == (2 * HUGE - 1, 2 * HUGE)
    assert numbers.product(HUGE).multiplications == ((2 * HUGE - 1) * HUGE, 2 * HUGE * HUGE)
    assert numbers.flops("rnn", 1, 1).saved == 4
    assert numbers.fill == float(Fraction(2 * HUGE - 1, 2 * HUGE))


def test_integers_that_no_float_holds_pass_through_numpy_and_torch():
    for kind in (numpy.array([HUGE, 1]), torch.tensor([HUGE, 1])):
        assert waste(kind).rows == HUGE + 1


# ---- kinds of lengths ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "lengths",
    [
        tuple(LENGTHS),
        [float(n) for n in LENGTHS],
        iter(LENGTHS),
        (n for n in LENGTHS),
        numpy.array(LENGTHS, dtype=numpy.uint8),
        numpy.array(LENGTHS, dtype=numpy.float32),
        [numpy.int16(n) for n in LENGTHS],
        torch.tensor(LENGTHS),
        torch.tensor(LENGTHS, dtype=torch.int32),
        torch.tensor(LENGTHS, dtype=torch.float64, requires_grad=True),
        list(torch.tensor(LENGTHS)),
        [Fraction(n) for n in LENGTHS],
        dict(enumerate(LENGTHS)).values(),
    ],
    ids=lambda lengths: f"{type(lengths).__name__}-{getattr(lengths, 'dtype', '')}",
)
def test_lengths_of_every_kind_count_the_same(lengths):
    numbers = waste(lengths)
    assert (numbers.rows, numbers.cells) == (45, 64)
    assert type(numbers.rows) is int and type(numbers.batches[0].steps) is int


BAD_LENGTHS = [
    ([4, -1, -2], "lengths[1] = -1 is negative"),
    ([4, 2.5], "lengths[1] = 2.5 is not a whole number"),
    ([4, float("nan")], "lengths[1] = nan is not a whole number"),
    ([4, float("inf")], "lengths[1] = inf is not a whole number"),
    ([4.0, -3.0], "lengths[1] = -3 is negative"),
    ([1, 1e300], "lengths[1] = 1e+300 does not fit into 64 bits"),
    ([True], "lengths[0] = True is not a whole number"),
    ([1, "2"], "lengths[1] must be a whole number, got str"),
    ([1, None], "lengths[1] must be a whole number, got NoneType"),
    ([[1], [2]], "lengths[0] must be a whole number, got list"),
    ("123", "lengths must be whole numbers, got str"),
    (b"123", "lengths must be whole numbers, got bytes"),
    (7, "lengths must be a sequence of whole numbers, got int"),
    (None, "lengths must be a sequence of whole numbers, got NoneType"),
    (numpy.zeros((2, 3)), "lengths must be one-dimensional, (B,), got shape (2, 3)"),
    (torch.tensor(3), "lengths must be one-dimensional, (B,), got shape ()"),
    (numpy.array([1.5]), "lengths[0] = 1.5 is not a whole number"),
    (torch.tensor([1, -5]), "lengths[1] = -5 is negative"),
]


@pytest.mark.parametrize(("lengths", "message"), BAD_LENGTHS, ids=[message for _, message in BAD_LENGTHS])
def test_bad_lengths_are_told_by_the_first_culprit(lengths, message):
    with pytest.raises(LengthsError) as caught:
        waste(lengths)
    assert str(caught.value) == message


POLICIES = "'given', 'random', 'bucket', 'sorted', 'binpack'"
BAD_OPTIONS = [
    (lambda: waste([1], batch_size=0), "batch_size must be a whole number of at least 1, got 0"),
    (lambda: waste([1], batch_size=2.0), "batch_size must be a whole number of at least 1, got 2.0"),  # type: ignore[arg-type]
    (lambda: waste([1], batch_size=True), "batch_size must be a whole number of at least 1, got True"),
    (
        lambda: waste([1], policy="sort"),
        f"policy must be one of {POLICIES}, got 'sort'; did you mean 'sorted'?",
    ),
    (lambda: waste([1], policy="xyz"), f"policy must be one of {POLICIES}, got 'xyz'"),
    (lambda: waste([1], tokens=0), "tokens must be a whole number of at least 1, got 0"),
    (lambda: waste([1], batch_size=1, tokens=1), "give either batch_size or tokens, got both"),
    (
        lambda: waste([4] * 3, policy="binpack", tokens=10**30),
        f"tokens must be at most {2**62}, got {10**30}",
    ),
    (lambda: waste([1], policy="binpack"), "policy 'binpack' fills rows of a fixed size: give tokens"),
    (
        lambda: waste([1], policy="binpack", batch_size=2),
        "policy 'binpack' fills rows of a fixed size: give tokens",
    ),
    (
        lambda: waste([1], policy="random", batch_size=2, seed=-1),
        "seed must be a whole number of at least 0, got -1",
    ),
    (lambda: waste([1], seed=-1), "seed must be a whole number of at least 0, got -1"),
    (
        lambda: waste([1], seed="x", policy="random"),  # type: ignore[arg-type]
        "seed must be a whole number of at least 0, got 'x'",
    ),
    (lambda: waste([1, 9], padded=True), "padded says that tokens counts cells: give tokens"),
    (
        lambda: waste([1, 9], batch_size=1, padded=True),
        "padded says that tokens counts cells: give tokens",
    ),
    (
        lambda: waste([1], tokens=2, padded=numpy.array([True, False])),  # type: ignore[arg-type]
        "padded must be True or False, got array([ True, False])",
    ),
    (
        lambda: waste([1]).flops("lstn", 1, 1),
        "cell must be one of 'rnn', 'lstm', 'gru', got 'lstn'; did you mean 'lstm'?",
    ),
    (
        lambda: waste([1]).flops("LSTM", 1, 1, bidirectional="no"),  # type: ignore[arg-type]
        "bidirectional must be True or False, got 'no'",
    ),
    (
        lambda: waste([1]).flops("LSTM", 1, 1, training="no"),  # type: ignore[arg-type]
        "training must be True or False, got 'no'",
    ),
    (lambda: waste([1], tokens=2, padded="no"), "padded must be True or False, got 'no'"),  # type: ignore[arg-type]
    (lambda: waste([1]).product(0), "width must be a whole number of at least 1, got 0"),
    (
        lambda: waste([1]).flops("cnn", 1, 1),
        "cell must be one of 'rnn', 'lstm', 'gru', got 'cnn'; did you mean 'rnn'?",
    ),
    (lambda: waste([1]).flops("rnn", 0, 1), "input_size must be a whole number of at least 1, got 0"),
    (lambda: waste([1]).flops("rnn", 1, -1), "hidden_size must be a whole number of at least 1, got -1"),
    (lambda: waste([1]).flops("rnn", 1, 1, 0), "num_layers must be a whole number of at least 1, got 0"),
]


@pytest.mark.parametrize(("call", "message"), BAD_OPTIONS, ids=[message for _, message in BAD_OPTIONS])
def test_bad_options_are_told_with_what_was_expected_and_what_was_got(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert str(caught.value) == message


# ---- values and tables --------------------------------------------------------------------------------


def test_numbers_are_frozen_and_hashable():
    numbers = waste(LENGTHS)
    with pytest.raises(dataclasses.FrozenInstanceError):
        numbers.rows = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        numbers.batches[0].rows = 1  # type: ignore[misc]
    assert isinstance(numbers, Waste) and hash(numbers) == hash(waste(tuple(LENGTHS)))


def test_a_count_says_what_is_saved():
    assert Count(3, 10).saved == 7


def test_a_table_has_a_line_a_waste_and_its_columns_stand_one_below_the_other():
    table = waste_table({"one batch": waste(LENGTHS), "larger": waste([12_345, 1], batch_size=1)})
    head, *lines = table.splitlines()
    assert len(lines) == 2 and {len(line) for line in lines} == {len(head)}
    assert lines[0].split() == ["one", "batch", "8", "1", "45", "64", "70.3", "%", "29.7", "%"]
    assert lines[1].split() == ["larger", "2", "2", "12,346", "12,346", "100.0", "%", "0.0", "%"]


@pytest.mark.parametrize(
    ("options", "absent"),
    [("", "torch numpy"), ("tokens=3", "torch numpy"), ("policy='bucket', batch_size=2", "torch")],
)
def test_counting_prints_nothing_and_imports_no_more_than_it_needs(options, absent):
    code = (
        f"import padless, sys; padless.waste([3, 1], {options}).flops('lstm', 1, 1)\n"
        f"assert not {set(absent.split())!r} & sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert padless.waste is waste
