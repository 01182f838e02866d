"""`padless report` as its users meet it: its table to the letter, its numbers against plain loops, its errors."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import subprocess
import sys
import textwrap
from array import array
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from padless.cli import command as cli
from padless.data import plan
from padless.errors import DisagreementError
from padless.report import command
from padless.report.contents import seconds_text
from padless.report.spread import spread_of
from padless.report.survey import Batching, batches_at

LENGTHS = [4, 6, 8, 5, 4, 3, 7, 8]
ORDERED = ("--policy", "given", "--policy", "sorted", "--policy", "binpack")  # nothing random in them
EVERY = ("given", "random", "bucket", "sorted", "binpack")


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of lengths in the working directory, so that its name is its path."""
    monkeypatch.chdir(tmp_path)
    Path("lengths.txt").write_text("".join(f"{length}\n" for length in LENGTHS))
    return "lengths.txt"


def report(capsys, *arguments: str) -> str:
    code = cli.main(["report", *arguments])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "padless", "report", *arguments],
        capture_output=True, text=True, timeout=100, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def dedented(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


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

        given, sorted: 4 sequences a batch
        binpack: up to 23 rows a batch, back to back in one line of as many cells
        needed: what the real rows take in any batches, and what padless computes
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

        given, sorted: up to 7 rows a batch
        binpack: up to 7 rows a batch, back to back in one line of as many cells
        2 sequences longer than the budget: a batch of its own for each
        needed: what the real rows take in any batches, and what padless computes
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

        given: up to 8 cells a batch
        needed: what the real rows take in any batches, and what padless computes
        multiplications, additions: of one output column of a matrix product over rows of width 1
        """)  # fmt: skip


def test_one_sequence_is_reported_in_the_singular(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("one.jsonl").write_text("[1]\n")
    found = report(capsys, "one.jsonl", "--batch-size", "1", "--policy", "given")
    assert found.startswith(
        "one.jsonl: 1 sequence, 1 item\nshortest 1, median 1, mean 1.0, 99 % up to 1, longest 1\n"
    )
    assert "given: 1 sequence a batch\n" in found


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


# ---- the page -----------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Cells of tables by rows, titles of bars, and every tag, which must be closed."""

    VOID = ("meta", "line", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


@pytest.fixture
def page(file, capsys):
    name = "<script>alert(1)</script> & sons.txt"
    os.rename(file, name.replace("/", "\N{DIVISION SLASH}"))
    name = name.replace("/", "\N{DIVISION SLASH}")
    text = report(capsys, name, "--batch-size", "4", "--network", "rnn", "--html", "page.html")
    return (
        Page(Path("page.html").read_text(encoding="utf-8")),
        text,
        Path("page.html").read_text(encoding="utf-8"),
    )


def test_the_page_has_the_table_of_the_terminal(page):
    parsed, text, _ = page
    block = text.split("\n\n")[1].splitlines()
    expected = [re.split(r"\s{2,}", line) for line in block]
    found = [[cell for cell in row if cell] for row in parsed.rows if row[0] in ("policy", "needed", *EVERY)]
    assert found == expected and len(found) == 7


def test_the_page_asks_nobody_for_anything_and_runs_nothing(page):
    parsed, _, source = page
    assert not re.search(r"https?:|//|url\(|@import|javascript:", source.replace("</", ""))
    assert {tag for tag, _ in parsed.tags}.isdisjoint(
        {"script", "link", "img", "iframe", "object", "base", "form"}
    )
    assert not any(
        name.startswith("on") or name in ("src", "href") for _, found in parsed.tags for name in found
    )


def test_a_file_s_name_is_text_on_the_page(page):
    parsed, _, _ = page
    assert "<script>alert(1)<\N{DIVISION SLASH}script> & sons.txt: 8 lengths, 45 rows" in parsed.text


def test_the_page_can_be_read_by_machines_and_in_the_dark(page):
    parsed, _, source = page
    tags = parsed.tags
    assert ("html", {"lang": "en"}) in tags and ("meta", {"charset": "utf-8"}) in tags
    assert "prefers-color-scheme: dark" in source and "color-scheme: light dark" in source
    (svg,) = [found for tag, found in tags if tag == "svg"]
    assert svg["role"] == "img"
    ids = {found["id"] for _, found in tags if "id" in found}
    assert set((svg["aria-labelledby"] or "").split()) <= ids
    assert all(found.get("scope") in ("row", "col") for tag, found in tags if tag == "th")
    assert sum(tag == "caption" for tag, _ in tags) == sum(tag == "table" for tag, _ in tags) == 2


def test_the_histogram_s_bars_are_as_high_as_their_counts_and_told_as_numbers_too(page):
    parsed, _, source = page
    bars = [found for tag, found in parsed.tags if tag == "rect"]
    counts = [int(count) for count in re.findall(r"<title>\d+: (\d+)</title>", source)]
    assert counts == [1, 2, 1, 1, 1, 2]
    heights = [float(found["height"] or 0) for found in bars]
    assert heights == pytest.approx([heights[0] * count for count in counts], rel=1e-3)
    numbers = [[f"{n}", f"{c}"] for n, c in zip(range(3, 9), counts, strict=True)]
    assert [row for row in parsed.rows if row[0].isdigit()] == numbers


def test_a_long_tail_shares_an_open_bar(tmp_path, capsys):
    path = tmp_path / "lengths.txt"
    path.write_text("".join(f"{n % 100}\n" for n in range(10_000)) + "1000000\n")
    report(capsys, str(path), "--html", str(tmp_path / "page.html"))
    assert "<title>100 and more: 1</title>" in (tmp_path / "page.html").read_text()


# ---- measuring ----------------------------------------------------------------------------------------

MEASURE = ("--measure", "--threads", "1", "--seconds", "0.01", "--input-size", "3", "--hidden-size", "4")


@pytest.mark.parametrize(
    "options", [(), ("--bidirectional", "--training", "--layers", "2", "--network", "gru")], ids=["", "all"]
)
def test_measured_seconds_are_of_the_sample_and_of_an_epoch(file, capsys, options):
    threads = torch.get_num_threads()
    found = json.loads(report(capsys, file, "--json", "--batch-size", "3", *MEASURE, *options))
    for policy in found["policies"]:
        measured = policy["measured"]
        assert 1 <= measured["batches"] <= policy["batches"] and 0 < measured["rows"] <= 45
        assert measured["rows"] <= measured["cells"] and measured["padded_seconds"] > 0
        assert measured["ratio"] == measured["padded_seconds"] / measured["padless_seconds"]
        part = measured["rows"] / 45
        assert measured["epoch_padless_seconds"] == pytest.approx(measured["padless_seconds"] / part)
        if policy["policy"] != "binpack":
            part = measured["cells"] / policy["cells"]
        assert measured["epoch_padded_seconds"] == pytest.approx(measured["padded_seconds"] / part)
    assert torch.get_num_threads() == threads


def test_measured_seconds_stand_below_the_table_and_on_the_page(file, capsys):
    text = report(capsys, file, *MEASURE, "--policy", "sorted", "--bidirectional", "--html", "page.html")
    table, how = text.split("\n\n")[-2:]
    head, line = table.splitlines()
    assert head.split("  ")[0] == "measured" and re.match(
        r"sorted +1 of 1 +100.0 % +\d+\.\d{3} m?s +\d+\.\d{3} m?s +\d+\.\d\d$", line
    )
    assert how.startswith("measured: LSTM 3 -> 4, bidirectional, inference; torch 2.")
    assert "1 thread, CPU time" in how and "results were checked equal before" in how
    assert "bidirectional: a padded grid begins in its padding" in how
    rows = Page(Path("page.html").read_text()).rows
    assert re.split(r"\s{2,}", line) in rows


def test_short_times_are_told_in_milliseconds():
    assert [seconds_text(seconds) for seconds in (0.0004284, 0.0999, 0.1, 4321.5)] == [
        "0.428 ms",
        "99.900 ms",
        "0.100 s",
        "4,321.500 s",
    ]


@pytest.mark.parametrize(
    ("load", "threads", "reported"), [(9.0, "2", True), (0.0, "2", False), (9.0, "1", False)]
)
def test_wall_time_on_a_busy_machine_is_reported(file, capsys, monkeypatch, load, threads, reported):
    monkeypatch.setattr("padless.bench.policies.load", lambda: load)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    text = report(capsys, file, *MEASURE, "--threads", threads, "--policy", "given")
    shown = "busy: 9.0 processes wanted the 4 cores before this began; --threads 1 counts CPU time, which they spare"
    assert (shown in text.splitlines()) is reported
    assert ("busy:" in text) is reported


def test_sequences_of_length_0_are_left_out_of_timing_and_batches_without_rows_too(tmp_path, capsys):
    path = tmp_path / "lengths.txt"
    path.write_text("0\n0\n3\n0\n")
    text = report(capsys, str(path), *MEASURE, "--policy", "given", "--batch-size", "2")
    assert re.search(r"^given +1 of 2 +100.0 %", text, re.M)
    assert "given: 1 of 2 batches left out, without rows or over 2 GiB padded" in text


def test_a_batch_too_large_to_time_is_left_out(file, capsys, monkeypatch):
    monkeypatch.setattr("padless.bench.policies._MOST_BYTES", 1)
    text = report(capsys, file, *MEASURE, "--policy", "given")
    assert "given: 1 of 1 batches left out, without rows or over 2 GiB padded" in text
    found = json.loads(report(capsys, file, *MEASURE, "--policy", "given", "--json"))
    assert "measured" not in found["policies"][0]


@pytest.mark.parametrize("options", [(), ("--bidirectional",)], ids=["one way", "both ways"])
def test_what_disagrees_is_not_timed(file, capsys, monkeypatch, options):
    from padless.bench import policies

    right = policies.packed_contestant

    def wrong(layer, packed, gradient, train):
        return right(layer, packed._replace(data=packed.data + 0.1), gradient, train)

    monkeypatch.setattr(policies, "packed_contestant", wrong)
    assert cli.main(["report", file, *MEASURE, *options]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("padless: LSTM 3 -> 4") and err.endswith("; nothing was timed\n")
    assert issubclass(DisagreementError, Exception)


# ---- what is imported ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "absent"),
    [
        (("lengths.txt",), 0, {"torch", "pyarrow"}),
        (("lengths.txt", "--json", "--html", "page.html"), 0, {"torch", "pyarrow"}),
        (("missing.txt",), 1, {"torch", "numpy", "pyarrow"}),
        (("lengths.txt", "--padded"), 2, {"torch", "numpy", "pyarrow"}),
    ],
    ids=["table", "json and page", "failure", "usage"],
)
def test_torch_is_not_imported_and_numpy_not_before_there_are_lengths(file, arguments, code, absent):
    probe = (
        "import sys, padless.cli\n"
        f"assert padless.cli.main(['report', *sys.argv[1:]]) == {code}\n"
        f"assert not {absent!r} & sys.modules.keys(), sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


# ---- standard input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("-",)], ids=["none", "-"])
def test_standard_input_is_read_where_no_file_is_given(arguments):
    done = run(*arguments, "--json", input="4\n6\n8\n5\n4\n3\n7\n8\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["rows"] == 45


@pytest.mark.parametrize(
    ("text", "arguments", "rows"),
    [
        ("two words\none\n", (), 3),
        ("[1, 2]\n[]\n", (), 2),
        ('{"a": "x y", "b": 1}\n', ("--column", "a"), 2),
        ("a,b\n4,x\n", ("--column", "a"), 4),
        ("a,b\nc\n", ("--format", "csv", "--column", "a"), None),
    ],
    ids=["txt", "jsonl", "objects", "csv", "forced"],
)
def test_the_format_of_standard_input_is_reported_by_its_first_line(text, arguments, rows):
    done = run("--json", *arguments, input=text)
    if rows is None:
        assert done.stderr == "padless: standard input, line 2: 1 cells, where the first row has 2\n"
    else:
        assert (done.returncode, json.loads(done.stdout)["rows"]) == (0, rows)


def test_a_packed_pipe_is_unpacked():
    done = subprocess.run(
        [sys.executable, "-m", "padless", "report", "--json"],
        input=gzip.compress(b"4\n6\n"),
        capture_output=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["rows"] == 10


def test_parquet_on_standard_input_is_read_from_a_file_and_refused_from_a_pipe(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "n.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"n": LENGTHS}), path)
    with path.open("rb") as opened:
        done = run("--json", stdin=opened)
    assert json.loads(done.stdout)["rows"] == 45
    piped = subprocess.run(
        [sys.executable, "-m", "padless", "report"], input=path.read_bytes(), capture_output=True, timeout=60
    )
    expected = b"padless: Parquet is read from its end, which a pipe does not have; give the file itself\n"
    assert (piped.returncode, piped.stdout, piped.stderr) == (1, b"", expected)


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_a_terminal_as_standard_input_is_not_waited_for():
    import pty

    ours, theirs = pty.openpty()
    done = run(stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (
        2,
        "padless: give a FILE, or lengths on standard input (see padless report --help)\n",
    )


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_has_gone_ends_it_without_a_word(file):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "padless", "report", file], stdout=writing, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


# ---- what is wrong ------------------------------------------------------------------------------------

COLUMN = "--column is for csv, tsv, json, jsonl and parquet, and lengths.txt is read as txt"
COUNT = "a whole number from 1 to 2,147,483,647"
HELP = "(see padless report --help)"
LINES = "is no integer, among lengths (--words counts words in every line)"
NEAR = "there are id, text; did you mean 'text'?"
WRONG = [
    (("missing.txt",), 1, "cannot read missing.txt: No such file or directory"),
    ((".",), 1, "cannot read .: Is a directory"),
    (("empty.txt",), 1, "empty.txt is empty"),
    (("binary.dat",), 1, "binary.dat, line 1: a NUL byte, so this is no txt"),
    (("nul.txt",), 1, "nul.txt, line 2: a NUL byte, so this is no txt"),
    (("negative.txt",), 1, "negative.txt, line 2: -6 is negative"),
    (("huge.txt",), 1, f"huge.txt, line 2: {10**30} is over 2,147,483,647; are these lengths?"),
    (("mixed.txt",), 1, f"mixed.txt, line 2: 'some words' {LINES}"),
    (("bad.parquet",), 1, "bad.parquet cannot be read as Parquet: Parquet magic bytes not found"),
    (("table.csv",), 2, "table.csv has 2 columns; choose one with --column: id, text"),
    (("table.csv", "--column", "test"), 2, f"table.csv has no column 'test'; {NEAR}"),
    (("lengths.txt", "--column", "n"), 2, COLUMN),
    (("lengths.txt", "--tokens", "9", "--batch-size", "3"), 2, "--batch-size and --tokens: give one of them"),
    (("lengths.txt", "--padded"), 2, "--padded says what --tokens bounds: give --tokens too"),
    (("lengths.txt", "--hidden-size", "3"), 2, "--hidden-size is of a network: give --network too"),
    (("lengths.txt", "--training"), 2, "--training is of a network: give --network too"),
    (("lengths.txt", "--seconds", "3"), 2, "--seconds is of --measure: give that too"),
    (("lengths.txt", "--batch-size", "0"), 2, f"argument --batch-size: {COUNT}, got '0' {HELP}"),
    (("lengths.txt", "--tokens", str(2**31)), 2, f"argument --tokens: {COUNT}, got '{2**31}' {HELP}"),
    (("lengths.txt", "--seed", "-1"), 2, f"argument --seed: a whole number from 0, got '-1' {HELP}"),
    (("lengths.txt", "--measure", "--seconds", "inf"), 2, f"argument --seconds: a number over 0, got 'inf' {HELP}"),
    (("lengths.txt", "--html", "missing/page.html"), 1, "cannot write to missing/page.html: No such file or directory"),
    (("lengths.txt", "--html", "."), 1, "cannot write to .: Is a directory"),
    (("lengths.txt", "more.txt"), 2, "unrecognized arguments: more.txt (see padless --help)"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG, ids=[" ".join(a)[:60] for a, *_ in WRONG])
def test_what_is_wrong_is_one_line_on_standard_error_and_an_exit_code(file, capsys, arguments, code, message):
    for name, content in {
        "empty.txt": b"",
        "binary.dat": bytes([0x89, 0x50, 0x00, 0xFF]),
        "nul.txt": b"4\n\0\n",
        "negative.txt": b"4\n-6\n",
        "huge.txt": b"4\n1" + b"0" * 30,
        "mixed.txt": b"4\nsome words\n",
        "bad.parquet": b"no table",
        "table.csv": b"id,text\n1,a b\n",
    }.items():
        Path(name).write_bytes(content)
    assert cli.main(["report", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"padless: {message}") and err.endswith("\n") and err.count("\n") == 1
    if "Parquet" not in message:  # whose reader has words of its own to add
        assert err == f"padless: {message}\n"


def test_a_file_that_may_not_be_read_is_reported(file, capsys, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    code = cli.main(["report", file])
    monkeypatch.undo()
    assert (code, capsys.readouterr()) == (1, ("", f"padless: cannot read {file}: Permission denied\n"))


def test_a_page_is_left_as_it_was_where_there_is_no_report(tmp_path, capsys):
    (tmp_path / "old.html").write_text("old")
    for name in ("new.html", "old.html"):
        assert cli.main(["report", str(tmp_path / "missing.txt"), "--html", str(tmp_path / name)]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]
    assert (tmp_path / "old.html").read_text() == "old"


def test_names_that_a_terminal_cannot_show_are_escaped(tmp_path):
    path = os.fsencode(tmp_path) + b"/l\xff\n.csv"
    with open(path, "w", encoding="utf-8") as table:
        table.write("l\u00e4nge\n4\n")
    done = subprocess.run(
        [sys.executable, "-m", "padless", "report", path, "--policy", "given"], capture_output=True, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[0].endswith(rb"/l\udcff\n.csv, column l\xe4nge: 1 length, 4 rows")
    missing = run(os.fsdecode(path) + "x")
    assert (
        missing.stderr.endswith("/l\\udcff\\n.csvx: No such file or directory\n")
        and missing.stderr.count("\n") == 1
    )


def test_a_page_that_cannot_be_written_is_reported_before_anything_is_read(capsys):
    assert cli.main(["report", "missing.txt", "--html", "missing/page.html"]) == 1
    assert (
        capsys.readouterr().err == "padless: cannot write to missing/page.html: No such file or directory\n"
    )


def test_random_lengths_of_any_size_make_a_report(tmp_path, capsys):
    chance = random.Random(0)
    path = tmp_path / "lengths.txt"
    path.write_text("".join(f"{int(chance.lognormvariate(3, 1))}\n" for _ in range(20_000)))
    found = json.loads(report(capsys, str(path), "--json"))["policies"]
    fills = {policy["policy"]: policy["fill"] for policy in found}
    assert (
        fills["given"] < 0.5 and fills["bucket"] > 0.85 and fills["binpack"] > 0.97 and fills["sorted"] > 0.95
    )
