"""The page of `padless report --html`."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from .kit import EVERY, Page, report


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
