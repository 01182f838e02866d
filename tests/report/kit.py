"""A file of eight lengths, and ways to run `padless report` on it."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from html.parser import HTMLParser

from padless.cli import command as cli

LENGTHS = [4, 6, 8, 5, 4, 3, 7, 8]
ORDERED = ("--policy", "given", "--policy", "sorted", "--policy", "binpack")  # nothing random in them
EVERY = ("given", "random", "bucket", "sorted", "binpack")


def report(capsys, *arguments: str) -> str:
    code = cli.main(["report", *arguments])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "padless", "report", *arguments],
        capture_output=True, text=True, timeout=100, **options,  # type: ignore[call-overload]
    )  # fmt: skip


def dedented(text: str) -> str:
    return textwrap.dedent(text).lstrip("\n")


class Page(HTMLParser):
    """Cells of tables by rows, titles of bars, and every tag, which must be closed."""

    VOID = ("meta", "line", "rect")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data
