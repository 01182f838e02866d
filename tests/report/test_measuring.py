"""`padless report --measure`."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from array import array
from pathlib import Path

import pytest
import torch

from padless.bench.policies import measure_policies
from padless.cli import command as cli
from padless.errors import DisagreementError
from padless.report.contents import seconds_text

from .kit import Page, report

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
    assert "1 thread, CPU time" in how and "results were checked for equality first" in how
    assert "bidirectional: a reversed padded grid starts in its padding" in how
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
    shown = (
        "busy: 9.0 processes competed for the 4 cores before the measurement; "
        "--threads 1 counts CPU time, which they do not affect"
    )
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


def test_a_report_without_a_network_cannot_be_measured():
    without = Namespace(network=None, policies=())
    with pytest.raises(ValueError, match=r"^measure_policies needs a report with a network$"):
        measure_policies(array("i", [4, 6]), without, threads=1, seconds=1)
