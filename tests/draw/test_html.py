"""The page as a file: what is in it, what may run in it, and that nothing slips into it."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from padless import LengthsError
from padless.draw import draw_html, draw_svg

from .kit import EIGHT


class Page(HTMLParser):
    """Elements by tag with their attributes, and the text inside script, style, textarea, title and label."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._open.append(tag)
        if tag in ("script", "style", "textarea", "title", "label"):
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if self._open and self._open[-1] in self.texts:
            self.texts[self._open[-1]][-1] += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.elements if found == tag]


def digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy_of(page: Page) -> dict[str, list[str]]:
    (content,) = [m["content"] for m in page.of("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    return {words[0]: words[1:] for words in map(str.split, content.split(";"))}


def test_the_policy_lets_the_page_s_own_script_and_styles_run_and_nothing_else():
    page = Page(draw_html(EIGHT))
    policy = policy_of(page)
    assert policy["default-src"] == policy["base-uri"] == policy["form-action"] == ["'none'"]
    assert policy["script-src"] == [digest(script) for script in page.texts["script"]]
    assert sorted(policy["style-src"]) == sorted(digest(style) for style in page.texts["style"])
    assert policy["img-src"] == ["data:"]


def test_nothing_is_fetched_and_nothing_runs_from_an_attribute():
    text = draw_html(EIGHT)
    page = Page(text)
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes if tag != "text"), (
            tag,
            attributes,
        )
        assert not {"src", "srcset", "action", "data"} & set(attributes)
        assert attributes.get("href", "data:,") == "data:,"
    assert re.findall(r"https?://[^\"' ]*", text) == ["http://www.w3.org/2000/svg"]  # a name, not an address
    script = page.texts["script"][0]
    for word in (
        "innerHTML",
        "eval(",
        "fetch(",
        "XMLHttpRequest",
        "import(",
        "document.write",
        "localStorage",
    ):
        assert word not in script, word


def test_every_mark_of_the_template_is_filled():
    assert not re.findall(r"\{\{\w+\}\}", draw_html(EIGHT))


def test_without_scripts_the_picture_is_there_all_the_same():
    inside = draw_html(EIGHT, name="x").split("<noscript>")[1].split("</noscript>")[0]
    assert draw_svg(EIGHT, name="x") in inside


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=30).filter(any))
def test_lengths_stand_in_the_box_and_nowhere_else(lengths):
    page = Page(draw_html(lengths))
    assert page.texts["textarea"] == [" ".join(map(str, lengths))]
    assert page.texts["script"] == Page(draw_html(EIGHT)).texts["script"]


@pytest.mark.parametrize(
    "name",
    [
        "</title><script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "{{script}}{{lengths}}",
        "a&amp;b",
    ],
)
def test_a_name_is_text_and_nothing_else(name):
    page, plain = Page(draw_html(EIGHT, name=name)), Page(draw_html(EIGHT))
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert page.texts["script"] == plain.texts["script"]
    assert page.texts["label"][0] == f"Lengths of {name}"


def test_every_control_has_a_label_and_every_id_is_one():
    page = Page(draw_html(EIGHT))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    labelled = {label["for"] for label in page.of("label")}
    for tag in ("input", "textarea"):
        assert all(control["id"] in labelled for control in page.of(tag))
    for attributes in (attributes for _, attributes in page.elements):
        for name in ("for", "aria-labelledby", "aria-describedby"):
            assert set((attributes.get(name) or "").split()) <= set(ids)


# ---- colours of the page ------------------------------------------------------------------------------


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted([luminance(one), luminance(other)])
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("ink", "ground", "least"),
    [
        ("ink", "paper", 4.5),
        ("ink", "card", 4.5),
        ("quiet", "paper", 4.5),
        ("quiet", "card", 4.5),
        ("accent", "paper", 4.5),
        ("on-accent", "accent", 4.5),
        ("wrong", "paper", 4.5),
        ("edge", "card", 3),
        ("hatch", "card", 3),
        ("accent", "card", 3),
    ],
)
def test_words_have_contrast_aa_and_lines_three_to_one(theme, ink, ground, least):
    style = (files("padless.draw") / "page" / "page.css").read_text(encoding="utf-8")
    block = style.split("}")[theme]
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
    assert contrast(colours[ink], colours[ground]) >= least


# ---- bounds -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([0], "all lengths are 0, so there is nothing to draw"),
        ([1, 10**9 + 1], "lengths[1] = 1000000001 is longer than the page draws (1,000,000,000 steps)"),
        (
            [1] * 10_001,
            "lengths has 10,001 sequences, but the page draws at most 10,000: draw one batch of them",
        ),
    ],
)
def test_what_a_page_cannot_show_is_said(lengths, message):
    with pytest.raises(LengthsError) as caught:
        draw_html(lengths)
    assert str(caught.value) == message
