"""The pictures that the documents show are those that padless draws."""

from __future__ import annotations

from pathlib import Path

from padless.draw import draw_html, draw_svg, draw_text

from ..golden import assert_golden
from .kit import EIGHT

DOCS = Path(__file__).parents[2] / "docs"


def test_golden_picture_of_the_readme():
    assert_golden(str(DOCS / "pictures" / "batch.svg"), draw_svg(EIGHT))


def test_golden_page_of_the_documents():
    assert_golden(str(DOCS / "pictures" / "batch.html"), draw_html(EIGHT))
    assert_golden(str(DOCS / "pictures" / "batch.ko.html"), draw_html(EIGHT, lang="ko"))


def test_the_text_on_the_page_about_drawing_is_what_is_printed():
    assert f"```text\n{draw_text(EIGHT)}\n```" in (DOCS / "drawing.md").read_text(encoding="utf-8")
