"""A batch as one interactive page: the files of `page/` joined, with a policy that forbids other scripts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

from ..errors import LengthsError
from ..lengths import host_lengths
from .arrangement import arrange
from .colours import FEW, MANY
from .svg import STYLE, draw_svg
from .words import SAVING, plain, saving

__all__ = ["LANGUAGES", "draw_html"]

LANGUAGES = ("en", "ko")

# A page shows one batch; within these bounds all its numbers are exact (cells stay under 2**53) and a frame is drawn
# in some milliseconds.
_MOST_SEQUENCES, _MOST_STEPS = 10_000, 1_000_000_000
_TITLE, _SOURCE = "Why do we pack sequences?", " of {name}"
_SCRIPTS = (
    "texts.js",
    "batch.js",
    "colours.js",
    "geometry.js",
    "canvas.js",
    "picture.js",
    "controls.js",
    "page.js",
)


def draw_html(lengths: Any, *, name: str = "", lang: str = "en") -> str:
    """A self-contained interactive page on which to step through, inspect and edit the batch.

    Args:
        lengths: `(B,)`, in any form that `waste` accepts: up to 10,000 sequences of up to a billion steps.
        name: the source of the lengths, shown on the page.
        lang: the language of the page, `"en"` or `"ko"`.

    Raises:
        ValueError: an unsupported language.
        LengthsError: a length is negative or not whole, there is no row to draw, or the batch is too large for a page.

    >>> page = draw_html([4, 6, 8])
    >>> page.startswith("<!doctype html>"), ">4 6 8</textarea>" in page
    (True, True)
    """
    if lang not in LANGUAGES:
        raise ValueError(f"lang must be {' or '.join(map(repr, LANGUAGES))}, got {lang!r}")
    values = host_lengths(lengths)
    if len(values) > _MOST_SEQUENCES:
        raise LengthsError(
            f"lengths has {len(values):,} sequences, but the page draws at most {_MOST_SEQUENCES:,}: "
            "draw one batch of them"
        )
    for i, value in enumerate(values):
        if value > _MOST_STEPS:
            raise LengthsError(
                f"lengths[{i}] = {value} is longer than the page draws ({_MOST_STEPS:,} steps)"
            )
    texts: dict[str, str] = {} if lang == "en" else json.loads(_asset(f"{lang}.json"))
    saved = saving(arrange(values).numbers, texts.get(SAVING, SAVING))
    style = _asset("page.css")
    script = _fill(
        "(() => {\n" + "\n".join(_asset(part) for part in _SCRIPTS) + "})();\n",
        {
            "texts": json.dumps(texts, ensure_ascii=False),
            "few": json.dumps(FEW),
            "many": json.dumps(MANY),
            "most_sequences": str(_MOST_SEQUENCES),
            "most_steps": str(_MOST_STEPS),
        },
    )
    return _fill(
        _translated(_asset("page.html"), texts),
        {
            "lang": lang,
            "policy": f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)} {_hash(STYLE)}; "
            "img-src data:; base-uri 'none'; form-action 'none'",
            "title": escape(f"{texts.get(_TITLE, _TITLE)} {saved}"),
            "saving": escape(saved),
            "source": escape(texts.get(_SOURCE, _SOURCE).format(name=plain(name))) if name else "",
            "lengths": " ".join(map(str, values)),
            "picture": draw_svg(values, name=name),
            "style": style,
            "script": script,
        },
    )


def _translated(template: str, texts: Mapping[str, str]) -> str:
    """`template` with each [[text]] translated; line breaks count as spaces."""
    return re.sub(
        r"\[\[(.+?)\]\]",
        lambda match: texts.get(" ".join(match[1].split()), match[1]),
        template,
        flags=re.DOTALL,
    )


def _asset(name: str) -> str:
    # Imported here because it takes a tenth of the start-up time of the command line.
    from importlib.resources import files

    return (files("padless.draw") / "page" / name).read_text(encoding="utf-8")


def _fill(template: str, values: Mapping[str, str]) -> str:
    """`template` with each {{name}} replaced in one pass: inserted text is not searched again."""
    return re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], template)


def _hash(text: str) -> str:
    import base64
    import hashlib

    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
