"""The console of docs/report.md is what the commands print, to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "report.md"


def sessions() -> list[tuple[str, str]]:
    """Commands and what they print, in the order of the page, whose files they share."""
    text = PAGE.read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    parts = [part for block in blocks for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    return [(command, output) for command, _, output in (part.partition("\n") for part in parts)]


@pytest.mark.skipif(os.name != "posix", reason="a shell of POSIX")
def test_the_console_of_the_page_is_what_commands_print(tmp_path):
    scripts = tmp_path / "bin"
    scripts.mkdir()
    padless = scripts / "padless"
    padless.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m padless "$@"\n')
    padless.chmod(0o755)
    environment = {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}"}
    found = sessions()
    assert len(found) >= 9
    for command, expected in found:
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, text=True, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        assert done.stdout == expected, command
