"""Colours that tell apart, with colour vision and without it, and labels that can be read on them."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from padless.draw.arrangement import arrange
from padless.draw.colours import FEW, MANY, ink_on, mean_colours, sequence_colours, terminal_colour

from .kit import small, steps_of

# What is left of linear RGB without one kind of cones: Machado, Oliveira and Fernandes (2009), severity 1.
SIGHT = {
    "full": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


def linear(colour: str) -> np.ndarray:
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE L*a*b* of linear RGB under D65."""
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ np.clip(
        rgb, 0, 1
    )
    ratio = xyz / np.array([0.9505, 1.0, 1.089])
    f = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def luminance(colour: str) -> float:
    return float(np.array([0.2126, 0.7152, 0.0722]) @ linear(colour))


@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_of_few_sequences_tell_apart(sight):
    seen = {colour: lab(SIGHT[sight] @ linear(colour)) for colour in FEW}
    distances = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(FEW, 2)}
    assert min(distances.values()) > 11, distances  # a just noticeable difference is about 2.3


@pytest.mark.parametrize("sight", SIGHT)
def test_shades_of_many_sequences_grow_lighter_from_first_to_last(sight):
    lightness = [lab(SIGHT[sight] @ linear(colour))[0] for colour in MANY]
    assert all(after - before > 3 for before, after in pairwise(lightness)), lightness


def contrast_of_label(colour: str) -> float:
    dark, light = sorted([luminance(colour), luminance(ink_on(colour))])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("colour", [*FEW, *MANY])
def test_a_label_on_a_sequence_s_colour_has_contrast_aa(colour):
    assert contrast_of_label(colour) >= 4.5


@given(st.text("0123456789abcdef", min_size=6, max_size=6))
def test_a_label_on_any_colour_has_contrast_aa(digits):
    assert contrast_of_label(f"#{digits}") >= 4.5


def test_a_terminal_shows_few_sequences_in_as_many_colours():
    numbers = [terminal_colour(colour) for colour in FEW]
    assert len(set(numbers)) == len(FEW)
    assert all(16 <= number <= 255 for number in numbers)


def test_few_sequences_keep_their_colour_by_index():
    assert sequence_colours(arrange([1, 3, 2])) == [FEW[1], FEW[2], FEW[0]]


def test_many_sequences_go_from_the_first_shade_to_the_last():
    colours = sequence_colours(arrange([9] * 50))
    assert colours[0] == MANY[0] and colours[-1] == MANY[-1] and len(set(colours)) == 50


@given(small, st.integers(1, 9))
def test_a_piece_of_memory_has_the_mean_colour_of_its_rows(lengths, pieces):
    batch = arrange(lengths)
    colours = sequence_colours(batch)
    by_index = dict(zip(batch.order, colours, strict=True))
    rows = [by_index[i] for running in steps_of(lengths) for i in running]
    pieces = min(pieces, len(rows))
    bounds = [i * len(rows) // pieces for i in range(pieces + 1)]
    for (start, stop), colour in zip(pairwise(bounds), mean_colours(batch, colours, bounds), strict=True):
        expected = [
            sum(int(row[i : i + 2], 16) for row in rows[start:stop]) // (stop - start) for i in (1, 3, 5)
        ]
        assert [int(colour[i : i + 2], 16) for i in (1, 3, 5)] == expected
