"""The picture of a batch: what it is drawn from, and what it does where it cannot be drawn."""

from __future__ import annotations

import sys

import pytest
import torch

from padless import LengthsError, PadlessError
from padless.draw import picture
from padless.draw.colours import FEW

matplotlib = pytest.importorskip("matplotlib")


@pytest.mark.parametrize(
    "lengths",
    [
        [1],
        [0, 3],
        [4, 6, 8, 5, 4, 3, 7, 8],
        [5] * 200,
        [2_600, *range(6, 37)],
        [1 + i % 5_000 for i in range(20_000)],
        [10**9, 5, 2**62],
        torch.tensor([3, 1]),
    ],
    ids=["one cell", "a length of 0", "few", "many and equal", "32 of 2,600", "20,000", "huge", "a tensor"],
)
def test_a_batch_of_any_shape_becomes_a_png_of_one_size(tmp_path, lengths):
    picture.save_picture(lengths, tmp_path / "batch.png")
    content = (tmp_path / "batch.png").read_bytes()
    assert content.startswith(b"\x89PNG\r\n\x1a\n")
    assert [int.from_bytes(content[i : i + 4], "big") for i in (16, 20)] == [1650, 1110]


def test_its_pixels_hold_each_sequence_s_colour_and_the_padding_s(tmp_path):
    from matplotlib.colors import to_rgb
    from matplotlib.image import imread

    picture.save_picture([3, 2, 1], tmp_path / "batch.png")
    seen = set(map(tuple, (imread(tmp_path / "batch.png")[..., :3].reshape(-1, 3) * 255).round().astype(int)))
    for colour in (*FEW[:3], picture._PADDING):
        assert tuple(round(255 * part) for part in to_rgb(colour)) in seen, colour
    assert tuple(round(255 * part) for part in to_rgb(FEW[3])) not in seen


@pytest.mark.parametrize("lengths", [[], [0, 0]])
def test_where_there_is_no_row_there_is_nothing_to_draw(tmp_path, lengths):
    with pytest.raises(LengthsError, match="^all lengths are 0, so there is nothing to draw$"):
        picture.save_picture(lengths, tmp_path / "batch.png")
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_it_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PadlessError, match=r"^pictures need Matplotlib: pip install matplotlib$"):
        picture.save_picture([1], tmp_path / "batch.png")
