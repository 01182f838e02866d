"""The page of `padless draw --html` in other languages than English."""

from __future__ import annotations

import json
import re
import string
from importlib.resources import files

import pytest

from padless.cli import command as cli
from padless.draw import draw_html
from padless.draw.html import LANGUAGES
from padless.draw.words import SAVING

PAGE = files("padless.draw") / "page"
TRANSLATIONS = [language for language in LANGUAGES if language != "en"]


def texts_of_the_page() -> set[str]:
    """Every English text: of the template, of `say` in the scripts, and the nouns that are counted."""
    template = (PAGE / "page.html").read_text(encoding="utf-8")
    found = {" ".join(text.split()) for text in re.findall(r"\[\[(.+?)\]\]", template, re.DOTALL)}
    found |= {SAVING, " of {name}"}
    for script in PAGE.iterdir():
        if script.name.endswith(".js"):
            code = re.sub(r'" \+\n\s*"', "", script.read_text(encoding="utf-8"))
            found |= set(re.findall(r'\bsay\("([^"]+)"', code))
            found |= {
                f"{{n}} {noun}"
                for noun in re.findall(r'\bcounted\([^",]*(?:\([^)]*\))?[^",]*, "([a-z ]+)"\)', code)
            }
    return found


def marks_in(page: str) -> bool:
    return "[[" in page[: page.index("<script>")]


def fields(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_every_text_of_the_page_is_translated_and_no_other(language):
    texts = json.loads((PAGE / f"{language}.json").read_text(encoding="utf-8"))
    assert texts.keys() == texts_of_the_page()
    for english, translated in texts.items():
        assert fields(translated) == fields(english), english


def test_the_korean_page_is_korean():
    page = draw_html([4, 6, 8, 5, 4, 3, 7, 8], name="<lengths>", lang="ko")
    assert '<html lang="ko">' in page and "<h1>시퀀스를 왜 패킹하나요?</h1>" in page
    assert "64칸 가운데 45칸이 진짜입니다: 곱셈 64번 중 19번 절약" in page
    assert "길이: &lt;lengths&gt;" in page
    assert not marks_in(page) and ">Play<" not in page


def test_the_english_page_has_no_marks_left():
    page = draw_html([4, 6, 8])
    assert not marks_in(page) and '<html lang="en">' in page


def test_a_language_that_there_is_not_is_refused(tmp_path, capsys):
    with pytest.raises(ValueError, match="'en' or 'ko'"):
        draw_html([1, 2], lang="fr")
    assert cli.main(["draw", "1", "2", "--html", str(tmp_path / "page.html"), "--lang", "fr"]) == 2
    assert "invalid choice: 'fr'" in capsys.readouterr().err
    assert cli.main(["draw", "1", "2", "--lang", "ko"]) == 2
    assert capsys.readouterr().err == "padless: --lang needs --html\n"
