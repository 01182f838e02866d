"""A batch in a terminal: what it says is read back, line by line, and held against the batch described step by step."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import padless
from padless import LengthsError
from padless.draw import draw_text

from ..golden import assert_golden
from .kit import EIGHT, drawable, order_of, small, steps_of

ESCAPE = re.compile(r"\033\[[0-9;]*m")
CASES = {
    "eight": EIGHT,
    "empty": [0, 3, 0],
    "eleven": [*EIGHT, 12, 3, 3],
    "long": [586, 75, 393, 421, 9],
    "many": [1 + (7 * i * i) % 20 for i in range(200)],
    "many-and-long": [1 + (i * i * i) % 2_503 for i in range(500)],
    "billion": [10**9, 5, 10**8, 0],
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name):
    assert_golden(f"draw-{name}.txt", draw_text(CASES[name]) + "\n")


def test_golden_in_colour():
    assert_golden("draw-eight-colour.txt", draw_text(EIGHT, color=True) + "\n")


def test_golden_in_ascii():
    assert_golden("draw-long-ascii.txt", draw_text(CASES["long"], ascii_only=True) + "\n")


# ---- what it says -------------------------------------------------------------------------------------


def sections(text: str) -> tuple[list[str], list[str], str]:
    """The grid's lines, the memory's lines, the last sentence."""
    head, grid, memory, sentence = text.split("\n\n")
    assert head.startswith("padded: ")
    return grid.splitlines()[1:], memory.splitlines()[1:], sentence


@given(small)
def test_each_line_of_the_grid_has_its_sequence_s_rows_and_then_padding(lengths):
    grid, _, _ = sections(draw_text(lengths, width=200))
    rows = [line.split() for line in grid[: len(lengths)]]
    assert [int(row[0]) for row in rows] == order_of(lengths)
    for index, length, *cells in rows:
        assert int(length) == lengths[int(index)]
        assert cells == [index] * int(length) + ["·"] * (max(lengths) - int(length))


@given(small)
def test_batch_sizes_stand_below_their_steps(lengths):
    grid, _, _ = sections(draw_text(lengths, width=200))
    steps, sizes = (line.split() for line in grid[len(lengths) :])
    assert steps == ["step", *(f"{step}" for step in range(max(lengths)))]
    assert sizes == ["batch", "size", *(f"{len(running)}" for running in steps_of(lengths))]


@given(small)
def test_memory_has_every_row_once_step_after_step(lengths):
    text = draw_text(lengths, width=1_000)
    _, memory, _ = sections(text)
    assert len(memory) == 1 and memory[0].startswith("  row ")
    rows = memory[0].split(maxsplit=2)[2]
    read = [part.split() if len(lengths) > 10 else list(part.strip()) for part in rows.split("|")]
    assert [[int(index) for index in part] for part in read] == steps_of(lengths)


@given(drawable)
def test_the_last_sentence_has_the_numbers_of_waste(lengths):
    rows, cells = sum(lengths), len(lengths) * max(lengths)
    sentence = draw_text(lengths, width=1_000).splitlines()[-1]
    assert (
        sentence
        == f"{rows:,} of {cells:,} cells are real: {cells - rows:,} of {cells:,} multiplications saved"
    )
    assert padless.waste(lengths).product().multiplications.saved == cells - rows


@given(st.lists(st.integers(200, 9_000), min_size=2, max_size=8))
def test_a_scaled_line_is_as_long_as_the_columns_that_it_says(lengths):
    text = draw_text(lengths)
    scaled = re.search(r"one column is ([\d,]+) steps", text)
    if scaled is None:
        return
    share = int(scaled[1].replace(",", ""))
    grid, _, _ = sections(text)
    columns = -(-max(lengths) // share)
    for line, index in zip(grid, order_of(lengths), strict=False):
        bar = line.split()[2]
        expected = columns if lengths[index] == max(lengths) else lengths[index] // share
        assert len(bar) == columns and bar.count("█") == expected
        eighths = [" ▏▎▍▌▋▊▉".index(glyph) / 8 for glyph in bar if glyph in "▏▎▍▌▋▊▉"]
        rest = lengths[index] % share / share if lengths[index] < max(lengths) else 0
        assert len(eighths) == (rest > 0)
        assert not eighths or abs(eighths[0] - rest) <= 1 / 8


@given(st.lists(st.integers(0, 50), min_size=33, max_size=150))
def test_a_shared_line_tells_what_all_of_its_sequences_have_from_what_some_have(lengths):
    lengths = [*lengths, 50]  # so many steps that each has one character
    text = draw_text(lengths)
    share = int(re.search(r"one line is (\d+) sequences", text)[1])
    grid, _, _ = sections(text)
    longest_first = sorted(lengths, reverse=True)
    lines = -(-len(lengths) // share)
    for i, line in enumerate(grid[:lines]):
        inside = longest_first[i * share : (i + 1) * share]
        slots, up_to, bar = line.split()
        assert slots.split("-")[0] == f"{i * share}" and up_to == f"{inside[0]}"
        assert bar == "█" * inside[-1] + "▒" * (inside[0] - inside[-1]) + "·" * (longest_first[0] - inside[0])


def test_what_is_too_much_for_memory_is_an_excerpt_and_says_so():
    lengths = CASES["many-and-long"]
    _, memory, _ = sections(draw_text(lengths))
    running = steps_of(lengths)
    assert len(memory) == 7 and memory[4].strip() == "…"
    for line in memory[:4] + memory[5:]:
        row, step, count, some = re.fullmatch(
            r"  row +([\d,]+)  step +([\d,]+)  ([\d,]+) rows?:((?: \d+)+)(?: …)?", line
        ).groups()
        step = int(step.replace(",", ""))
        assert int(row.replace(",", "")) == sum(map(len, running[:step]))
        assert int(count) == len(running[step])
        listed = [int(index) for index in some.split()]
        assert listed == running[step][: len(listed)]
    assert "(the first and last steps)" in draw_text(lengths)


# ---- where it is read ---------------------------------------------------------------------------------


@given(drawable, st.integers(40, 130), st.booleans())
def test_no_line_is_wider_than_the_terminal(lengths, width, ascii_only):
    text = draw_text(lengths, width=width, ascii_only=ascii_only)
    assert max(map(len, text.splitlines())) <= width
    assert not any(line != line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("width", [39, 80.0])
def test_a_width_that_no_picture_has_is_refused(width):
    with pytest.raises(ValueError, match=rf"^width must be a whole number of at least 40, got {width}$"):
        draw_text([4, 6], width=width)


@given(drawable)
def test_colour_adds_colour_and_nothing_else(lengths):
    plain = draw_text(lengths)
    assert "\033" not in plain
    coloured = draw_text(lengths, color=True)
    assert "\033[" in coloured
    assert [line.rstrip() for line in ESCAPE.sub("", coloured).splitlines()] == plain.splitlines()


@given(drawable)
def test_no_line_hands_a_colour_on_to_the_next(lengths):
    for line in draw_text(lengths, color=True).splitlines():
        assert not ESCAPE.findall(line) or ESCAPE.findall(line)[-1] == "\033[0m"


@given(drawable)
def test_ascii_only_is_ascii_only(lengths):
    assert draw_text(lengths, ascii_only=True).isascii()


def test_each_sequence_has_a_ground_of_its_own():
    grid, _, _ = sections(draw_text(EIGHT, color=True))
    grounds = [re.search(r"48;5;(\d+)m", line)[1] for line in grid[:8]]
    assert len(set(grounds)) == 8


def test_lengths_of_any_kind_are_drawn_alike():
    numpy = pytest.importorskip("numpy")
    torch = pytest.importorskip("torch")
    assert draw_text(torch.tensor(EIGHT)) == draw_text(numpy.array(EIGHT)) == draw_text(EIGHT)


def test_where_there_is_no_row_there_is_nothing_to_draw():
    with pytest.raises(LengthsError, match="nothing to draw"):
        draw_text([0])
