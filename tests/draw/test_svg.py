"""A batch as SVG: read as XML, and held against the batch described step by step."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import given

from padless.draw import draw_svg
from padless.draw.colours import FEW

from ..golden import assert_golden
from .kit import EIGHT, drawable, order_of, small, steps_of

SVG = "{http://www.w3.org/2000/svg}"
LEFT, ACROSS = 84, 856


def shapes(text: str, kind: str) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(text).iter(SVG + kind))


def index_of(shape: ElementTree.Element) -> int | None:
    """The sequence whose colour a shape has, where it has one of the few."""
    if shape.get("class") == "last":
        return len(FEW) - 1
    return FEW.index(shape.get("fill")) if shape.get("fill") in FEW else None


@pytest.mark.parametrize(
    ("name", "lengths"),
    [
        ("many-and-long", [1 + (i * i * i) % 2_503 for i in range(500)]),
        ("billion", [10**9, 5, 10**8, 0]),
    ],
)
def test_golden(name, lengths):
    assert_golden(f"draw-{name}.svg", draw_svg(lengths))


@given(small.filter(lambda lengths: len(lengths) <= 8))
def test_bars_of_the_grid_are_as_long_as_their_sequences(lengths):
    bars = [shape for shape in shapes(draw_svg(lengths), "rect") if index_of(shape) is not None]
    nonempty = [i for i in order_of(lengths) if lengths[i]]
    assert [index_of(bar) for bar in bars[: len(nonempty)]] == nonempty
    for bar, i in zip(bars, nonempty, strict=False):
        assert float(bar.get("x")) == LEFT
        assert float(bar.get("width")) == pytest.approx(lengths[i] * ACROSS / max(lengths), abs=0.01)


@given(small.filter(lambda lengths: len(lengths) <= 8))
def test_memory_has_a_piece_for_every_row_in_packed_order(lengths):
    bars = [shape for shape in shapes(draw_svg(lengths), "rect") if index_of(shape) is not None]
    pieces = bars[sum(map(bool, lengths)) :]
    rows = [i for running in steps_of(lengths) for i in running]
    assert [index_of(piece) for piece in pieces] == rows
    place = ACROSS / (len(lengths) * max(lengths))
    for row, piece in enumerate(pieces):
        assert float(piece.get("x")) == pytest.approx(LEFT + row * place, abs=0.01)


@given(small)
def test_steps_and_batch_sizes_are_written_below_the_grid(lengths):
    texts = [text.text for text in shapes(draw_svg(lengths), "text")]
    numbers = [texts[i : i + 2] for i in range(len(texts))]
    for step, running in enumerate(steps_of(lengths)):
        assert [f"{step}", f"{len(running)}"] in numbers


@given(drawable)
def test_it_is_xml_of_bounded_size_without_a_number_that_is_none(lengths):
    text = draw_svg(lengths)
    root = ElementTree.fromstring(text)
    assert root.get("role") == "img" and len(text) < 200_000
    numbers = re.findall(r' (?:x|y|width|height|d)="([^"]*)"', text)
    assert not any(word in number for number in numbers for word in ("nan", "inf", "e"))
    rows, cells = sum(lengths), len(lengths) * max(lengths)
    assert root.find(SVG + "title").text.startswith(f"{rows:,} of {cells:,} cells are real")


@given(drawable)
def test_nothing_stands_outside_the_picture(lengths):
    root = ElementTree.fromstring(draw_svg(lengths))
    width, height = float(root.get("width")), float(root.get("height"))
    for shape in root.iter(SVG + "rect"):
        if shape.get("width") is None or shape.get("x") is None:
            continue
        assert 0 <= float(shape.get("x")) <= float(shape.get("x")) + float(shape.get("width")) <= width
        assert 0 <= float(shape.get("y")) <= float(shape.get("y")) + float(shape.get("height")) <= height


def test_what_is_scaled_says_so():
    text = draw_svg([1 + (i * i) % 2_503 for i in range(500)])
    assert (
        "scaled: one line is 3 sequences" in text and "scaled: the mean colour of neighbouring rows" in text
    )
    assert "scaled" not in draw_svg(EIGHT)


@pytest.mark.parametrize("name", ["a\x00\x1b.txt", "a\udcff.txt"])
def test_a_name_of_any_bytes_leaves_it_xml(name):
    root = ElementTree.fromstring(draw_svg(EIGHT, name=name).encode())
    assert root.find(SVG + "title").text.startswith("a\ufffd")


def test_the_most_labels_that_there_can_be_stay_in_bounds():
    assert len(draw_svg([38] * 26)) < 200_000


def test_a_name_is_text_and_nothing_else():
    name = "</title><script>alert(1)</script>&\"'.txt"
    root = ElementTree.fromstring(draw_svg(EIGHT, name=name))
    assert root.find(SVG + "title").text == f"{name}: 45 of 64 cells are real: 19 of 64 multiplications saved"
    assert not list(root.iter(SVG + "script"))
