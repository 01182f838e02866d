"""`padless report`: its table to the letter, and its numbers against plain loops."""

from __future__ import annotations

import json
from array import array
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from padless.cli import command as cli
from padless.data import plan
from padless.report import command
from padless.report.spread import spread_of
from padless.report.survey import Batching, batches_at

from .kit import EVERY, ORDERED, dedented, report

# ---- to the letter ------------------------------------------------------------------------------------


def test_the_table_by_batch_size(file, capsys):
    assert report(capsys, file, "--batch-size", "4", *ORDERED) == dedented("""
        lengths.txt: 8 lengths, 45 rows
        shortest 3, median 5.5, mean 5.6, 99 % up to 8, longest 8

        policy   batches  rows  cells     fill  wasted  multiplications  additions
        given          2    45     64   70.3 %  29.7 %               64         56
        sorted         2    45     52   86.5 %  13.5 %               52         44
        binpack        2    45     46   97.8 %   2.2 %               46         44
        needed              45     45  100.0 %   0.0 %               45         37

        given, sorted: 4 sequences per batch
        binpack: up to 23 rows per batch, back to back in one line of as many cells
        needed: the work for the real rows, however they are batched, which is what padless computes
        multiplications, additions: of one output column of a matrix product over rows of width 1
        """)


def test_the_table_by_tokens_with_a_network(file, capsys):
    options = (
        "--network",
        "gru",
        "--input-size",
        "10",
        "--hidden-size",
        "20",
        "--layers",
        "2",
        "--bidirectional",
    )
    found = report(capsys, file, "--tokens", "7", "--width", "1000", "--training", *options, *ORDERED)
    assert found == dedented("""
        lengths.txt: 8 lengths, 45 rows
        shortest 3, median 5.5, mean 5.6, 99 % up to 8, longest 8

        policy   batches  rows  cells     fill  wasted  multiplications  additions      FLOPs
        given          7    45     46   97.8 %   2.2 %           46,000     45,992  2,980,800
        sorted         7    45     46   97.8 %   2.2 %           46,000     45,992  2,980,800
        binpack        7    45     51   88.2 %  11.8 %           51,000     50,993  3,304,800
        needed              45     45  100.0 %   0.0 %           45,000     44,992  2,916,000

        given, sorted: up to 7 rows per batch
        binpack: up to 7 rows per batch, back to back in one line of as many cells
        2 sequences longer than the budget: each is a batch of its own
        needed: the work for the real rows, however they are batched, which is what padless computes
        multiplications, additions: of one output column of a matrix product over rows of width 1,000
        FLOPs: GRU 10 -> 20, 2 layers, bidirectional, training; matrix products only, a multiply-add is 2
        """)


def test_sequences_of_words_and_large_numbers(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("texts.csv").write_text("id,text\n" + "1,a b c\n2,\n" * 5_000)
    found = report(capsys, "texts.csv", "--column", "text", "--tokens", "8", "--padded", "--policy", "given")
    assert found == dedented("""
        texts.csv, column text: 10,000 sequences, 15,000 words
        shortest 0, median 1.5, mean 1.5, 99 % up to 3, longest 3; 5,000 empty

        policy  batches    rows   cells     fill  wasted  multiplications  additions
        given     5,000  15,000  30,000   50.0 %  50.0 %           30,000     20,000
        needed           15,000  15,000  100.0 %   0.0 %           15,000     10,000

        given: up to 8 cells per batch
        needed: the work for the real rows, however they are batched, which is what padless computes
        multiplications, additions: of one output column of a matrix product over rows of width 1
        """)  # fmt: skip


def test_one_sequence_is_reported_in_the_singular(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("one.jsonl").write_text("[1]\n")
    found = report(capsys, "one.jsonl", "--batch-size", "1", "--policy", "given")
    assert found.startswith(
        "one.jsonl: 1 sequence, 1 item\nshortest 1, median 1, mean 1.0, 99 % up to 1, longest 1\n"
    )
    assert "given: 1 sequence per batch\n" in found


def test_json_is_what_the_contract_says(file, capsys):
    found = json.loads(
        report(capsys, file, "--json", "--batch-size", "4", "--network", "lstm", "--seed", "3")
    )
    assert list(found) == ["sequences", "rows", "policies"]
    assert (found["sequences"], found["rows"]) == (8, 45)
    assert [policy["policy"] for policy in found["policies"]] == [*EVERY]
    assert found["policies"][3] == {
        "policy": "sorted",
        "batch_size": 4,
        "tokens": None,
        "padded": False,
        "seed": 3,
        "batches": 2,
        "rows": 45,
        "cells": 52,
        "fill": 45 / 52,
        "wasted_percent": 100 * (1 - 45 / 52),
        "width": 1,
        "multiplications": {"needed": 45, "padded": 52},
        "additions": {"needed": 37, "padded": 44},
        "network": {
            "cell": "lstm",
            "input_size": 256,
            "hidden_size": 256,
            "num_layers": 1,
            "bidirectional": False,
            "training": False,
        },
        "flops": {"needed": 45 * 2 * 4 * 256 * 512, "padded": 52 * 2 * 4 * 256 * 512},
    }
    assert (found["policies"][4]["batch_size"], found["policies"][4]["tokens"]) == (4, 23)


def test_by_tokens_json_has_no_batch_size(file, capsys):
    found = json.loads(report(capsys, file, "--json", "--tokens", "16"))
    assert {(policy["batch_size"], policy["tokens"]) for policy in found["policies"]} == {(None, 16)}
    assert not any(policy["padded"] for policy in found["policies"])
    found = json.loads(report(capsys, file, "--json", "--tokens", "16", "--padded"))
    assert all(policy["padded"] for policy in found["policies"])


# ---- against plain loops ------------------------------------------------------------------------------

lengths = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def loops(batches: list[list[int]], *, line: int = 0) -> dict[str, int]:
    """What these batches cost, counted cell by cell; with `line`, each in one line of at least so many cells."""
    cells = rows = additions = needed_additions = 0
    for batch in batches:
        lines = [max(line, sum(batch))] if line else [max(batch)] * len(batch)
        if line:
            lines = [max(line, *batch)]
        for length in lines:
            cells += length
            additions += max(length - 1, 0)
        for length in batch:
            rows += length
            needed_additions += max(length - 1, 0)
    return {
        "batches": len(batches),
        "rows": rows,
        "cells": cells,
        "a": additions,
        "needed_a": needed_additions,
    }


@pytest.mark.filterwarnings("ignore:lengths:UserWarning")
@given(lengths, st.integers(1, 9), st.integers(0, 2))
def test_numbers_by_batch_size_are_those_that_loops_count(lengths, size, seed):
    for each in surveyed(lengths, "--batch-size", str(size), "--seed", str(seed)):
        name = each["policy"]
        if name == "given":
            batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
            expected = loops(batches)
        else:
            by_tokens = name == "binpack"
            options = {"tokens": each["tokens"]} if by_tokens else {"batch_size": size}
            planned = plan(lengths, policy=name, seed=seed, **options)
            batches = [[lengths[i] for i in batch] for batch in planned]
            expected = loops(batches, line=each["tokens"] if by_tokens else 0)
        assert_counted(each, expected)


@pytest.mark.filterwarnings("ignore:lengths:UserWarning")
@given(lengths, st.integers(1, 60), st.booleans())
def test_numbers_by_tokens_are_those_that_loops_count(lengths, tokens, padded):
    for each in surveyed(lengths, "--tokens", str(tokens), *(["--padded"] if padded else [])):
        if each["policy"] != "given":
            planned = plan(lengths, policy=each["policy"], tokens=tokens, padded=padded)
            batches = [[lengths[i] for i in batch] for batch in planned]
            assert_counted(each, loops(batches, line=0 if padded or each["policy"] != "binpack" else tokens))


def surveyed(lengths: list[int], *arguments: str) -> list[dict]:
    with pytest.MonkeyPatch.context() as patch:
        shown: list[str] = []
        patch.setattr(command, "_read", lambda options: Found(lengths))
        patch.setattr("builtins.print", lambda text: shown.append(text))
        assert cli.main(["report", "unread", "--json", *arguments]) == 0
    return json.loads(shown[0])["policies"]


class Found:
    source, column, note, unit = "unread", None, None, "lengths"

    def __init__(self, lengths: list[int]) -> None:
        self.values = array("i", lengths)


def assert_counted(found: dict, expected: dict[str, int]) -> None:
    assert {name: found[name] for name in ("batches", "rows", "cells")} == {
        name: expected[name] for name in ("batches", "rows", "cells")
    }
    assert found["multiplications"] == {"needed": expected["rows"], "padded": expected["cells"]}
    assert found["additions"] == {"needed": expected["needed_a"], "padded": expected["a"]}
    assert found["fill"] == (expected["rows"] / expected["cells"] if expected["cells"] else 1.0)


@given(lengths, st.sampled_from(EVERY), st.integers(1, 9), st.randoms(use_true_random=False))
def test_batches_by_number_are_those_of_the_plan(lengths, policy, size, chance):
    if policy == "given":
        batches = [lengths[start : start + size] for start in range(0, len(lengths), size)]
        batching = Batching(policy, size, None)
    else:
        options = {"tokens": 40 + size} if policy == "binpack" else {"batch_size": size}
        batches = [[lengths[i] for i in batch] for batch in plan(lengths, policy=policy, **options)]
        batching = Batching(policy, None if policy == "binpack" else size, options.get("tokens"))
    numbers = sorted(chance.sample(range(len(batches)), chance.randint(0, len(batches))))
    assert batches_at(array("i", lengths), batching, numbers) == [batches[number] for number in numbers]


@given(st.lists(st.one_of(st.integers(0, 50), st.integers(0, 2**31 - 1)), min_size=1, max_size=200))
def test_the_spread_is_that_of_sorted_lengths(lengths):
    spread, ordered = spread_of(array("i", lengths)), sorted(lengths)
    middle = ordered[(len(lengths) - 1) // 2] + ordered[len(lengths) // 2]
    assert (spread.shortest, spread.median, spread.longest) == (ordered[0], middle / 2, ordered[-1])
    assert (spread.rows, spread.empty) == (sum(lengths), lengths.count(0))
    assert sum(length <= spread.most for length in lengths) >= 0.99 * len(lengths)
    assert sum(length < spread.most for length in lengths) < 0.99 * len(lengths)


@given(st.lists(st.one_of(st.integers(0, 50), st.integers(0, 2**31 - 1)), min_size=1, max_size=200))
def test_every_sequence_is_in_one_bin_and_bins_are_few(lengths):
    bins = spread_of(array("i", lengths)).bins
    assert len(bins) <= 62
    for each in bins:
        high = each.high if each.high is not None else 2**31
        assert each.count == sum(each.low <= length <= high for length in lengths)
    assert sum(each.count for each in bins) == len(lengths)
    assert all(before.high is not None and before.high + 1 == after.low for before, after in pairwise(bins))
