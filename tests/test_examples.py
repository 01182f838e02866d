"""The scripts in examples/ run as they are, in an interpreter of their own, and print what they promise."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

LAST_LINES = {
    "batches.py": r"resumed with 1\d batches of at least \d+ rows",
    "caption.py": r"loss 0\.\d+, 1\d\d of 200 captions are right",
    "classify.py": r"epoch 30: loss 0\.\d+, 24 of 24 right",
    "count_waste.py": r" +16  sorted +\d+ +\d+ +\d+\.\d%",
    "one_line.py": r"largest difference, relative to the largest value: \de-0[5-9]",
    "speech.py": r"frames up to \d+ a sequence; loss \d\.\d+, (9\d|100) of 100 are right",
    "tagger.py": r"200 sentences, \d+ tokens: (9\d\.\d|100\.0)% of the tags are right",
}

ELSEWHERE = {"train_ddp.py": "test_train_ddp.py"}  # under torchrun


def test_every_example_is_run():
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted([*LAST_LINES, *ELSEWHERE])
    assert all((Path(__file__).parent / test).exists() for test in ELSEWHERE.values())


@pytest.mark.parametrize("name", sorted(LAST_LINES))
def test_example_ends_with_what_it_promises(name):
    command = [sys.executable, "-W", "error", str(EXAMPLES / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(LAST_LINES[name], done.stdout.splitlines()[-1]), done.stdout
