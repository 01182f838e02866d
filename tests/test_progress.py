"""Progress: bars that are gone when all is done, and nothing on a standard error that nobody looks at."""

from __future__ import annotations

import sys

import pytest

from padless import progress
from padless.progress import Meter, bar


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Called inside of a test, whose own standard output and error these are."""
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass when a test says so."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.parametrize("total", [1, 7, 30, 100])
def test_a_log_gets_one_bar_of_thirty_marks_in_one_line(capsys, total):
    for done in range(1, total + 1):
        bar("reading", done, total)
    assert capsys.readouterr().out == f"  reading    {'#' * 30}\n"


def test_a_terminal_s_bar_is_redrawn_in_place_and_gone_at_the_end(capsys, monkeypatch):
    on_a_terminal(monkeypatch)
    bar("epoch 1", 500, 1_000)
    assert capsys.readouterr().out == f"\r  epoch 1    {'#' * 15}{'.' * 15} 500/1,000"
    bar("epoch 1", 1_000, 1_000)
    text = capsys.readouterr().out
    assert set(text) == {"\r", " "} and text.endswith("\r")


def test_a_meter_writes_nothing_where_standard_error_is_no_terminal(capsys, clock):
    with Meter("reading") as meter:
        for clock[0] in range(10):
            meter(int(clock[0]), 10)
    assert capsys.readouterr() == ("", "")


def test_a_meter_shows_its_part_on_standard_error_and_leaves_a_clean_line(capsys, monkeypatch, clock):
    on_a_terminal(monkeypatch)
    with Meter("reading") as meter:
        clock[0] = 1.0
        meter(512, 1024)
        assert capsys.readouterr() == ("", f"\r  reading    {'#' * 15}{'.' * 15} 50 %")
    out, err = capsys.readouterr()
    assert out == "" and set(err) == {"\r", " "} and err.endswith("\r")


def test_a_meter_without_an_end_counts(capsys, monkeypatch, clock):
    on_a_terminal(monkeypatch)
    with Meter("reading") as meter:
        clock[0] = 1.0
        meter(1_234_567, None)
        assert capsys.readouterr().err == "\r  reading    1,234,567"


def test_a_meter_draws_ten_times_a_second_and_nothing_for_what_is_done_at_once(capsys, monkeypatch, clock):
    on_a_terminal(monkeypatch)
    with Meter("reading") as meter:
        for clock[0] in (0.0, 0.05):
            meter(1, 2)
    assert capsys.readouterr() == ("", "")
    with Meter("reading") as meter:
        for tick in range(1_000):
            clock[0] += 0.01
            meter(tick, 1_000)
        assert 90 <= capsys.readouterr().err.count("\r") <= 101


def test_a_meter_s_line_is_gone_after_an_error_too(capsys, monkeypatch, clock):
    on_a_terminal(monkeypatch)

    def fail() -> None:
        with Meter("reading") as meter:
            clock[0] = 1.0
            meter(1, 2)
            raise ValueError("in the midst of it")

    with pytest.raises(ValueError):
        fail()
    assert capsys.readouterr().err.endswith("\r")
