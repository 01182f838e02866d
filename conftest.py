"""Runs the Python in README.md and docs/: blocks of one document share their names, top to bottom."""

from sybil import Sybil
from sybil.parsers.markdown import PythonCodeBlockParser, SkipParser

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(), SkipParser()],
    patterns=["README.md", "README.ko.md", "docs/*.md", "docs/**/*.md"],
).pytest()
collect_ignore = ["docs/conf.py", "docs/inventories.py"]  # for Sphinx
