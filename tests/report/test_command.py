"""`padless report` in a process of its own: imports, standard input, errors."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from padless.cli import command as cli
from padless.report import command
from padless.report.reading import FORMATS

from .kit import LENGTHS, report, run

# ---- what is imported ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "absent"),
    [
        (("lengths.txt",), 0, {"torch", "pyarrow"}),
        (("lengths.txt", "--json", "--html", "page.html"), 0, {"torch", "pyarrow"}),
        (("missing.txt",), 1, {"torch", "numpy", "pyarrow"}),
        (("lengths.txt", "--padded"), 2, {"torch", "numpy", "pyarrow"}),
    ],
    ids=["table", "json and page", "failure", "usage"],
)
def test_torch_is_not_imported_and_numpy_not_before_there_are_lengths(file, arguments, code, absent):
    probe = (
        "import sys, padless.cli\n"
        f"assert padless.cli.main(['report', *sys.argv[1:]]) == {code}\n"
        f"assert not {absent!r} & sys.modules.keys(), sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, *arguments], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_formats_are_those_of_the_reader():
    assert command._FORMATS == FORMATS


# ---- standard input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("-",)], ids=["none", "-"])
def test_standard_input_is_read_where_no_file_is_given(arguments):
    done = run(*arguments, "--json", input="4\n6\n8\n5\n4\n3\n7\n8\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["rows"] == 45


@pytest.mark.parametrize(
    ("text", "arguments", "rows"),
    [
        ("two words\none\n", (), 3),
        ("[1, 2]\n[]\n", (), 2),
        ('{"a": "x y", "b": 1}\n', ("--column", "a"), 2),
        ("a,b\n4,x\n", ("--column", "a"), 4),
        ("a,b\nc\n", ("--format", "csv", "--column", "a"), None),
    ],
    ids=["txt", "jsonl", "objects", "csv", "forced"],
)
def test_the_format_of_standard_input_is_reported_by_its_first_line(text, arguments, rows):
    done = run("--json", *arguments, input=text)
    if rows is None:
        assert done.stderr == "padless: standard input, line 2: 1 cells, but the first row has 2\n"
    else:
        assert (done.returncode, json.loads(done.stdout)["rows"]) == (0, rows)


def test_a_packed_pipe_is_unpacked():
    done = subprocess.run(
        [sys.executable, "-m", "padless", "report", "--json"],
        input=gzip.compress(b"4\n6\n"),
        capture_output=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["rows"] == 10


def test_parquet_on_standard_input_is_read_from_a_file_and_refused_from_a_pipe(tmp_path):
    import pyarrow
    import pyarrow.parquet

    path = tmp_path / "n.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"n": LENGTHS}), path)
    with path.open("rb") as opened:
        done = run("--json", stdin=opened)
    assert json.loads(done.stdout)["rows"] == 45
    piped = subprocess.run(
        [sys.executable, "-m", "padless", "report"], input=path.read_bytes(), capture_output=True, timeout=60
    )
    expected = b"padless: Parquet cannot come from a pipe, since it is read from its end; pass the file\n"
    assert (piped.returncode, piped.stdout, piped.stderr) == (1, b"", expected)


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_a_terminal_as_standard_input_is_not_waited_for():
    import pty

    ours, theirs = pty.openpty()
    done = run(stdin=theirs)
    os.close(ours)
    os.close(theirs)
    assert (done.returncode, done.stderr) == (
        2,
        "padless: give a FILE, or lengths on standard input (see padless report --help)\n",
    )


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_has_gone_ends_it_without_a_word(file):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "padless", "report", file], stdout=writing, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


# ---- what is wrong ------------------------------------------------------------------------------------

COLUMN = "--column is for csv, tsv, json, jsonl and parquet, but lengths.txt is read as txt"
COUNT = "a whole number from 1 to 2,147,483,647"
HELP = "(see padless report --help)"
LINES = "is not an integer, but lengths precede it (--words counts words)"
NEAR = "there are id, text; did you mean 'text'?"
WRONG = [
    (("missing.txt",), 1, "cannot read missing.txt: No such file or directory"),
    ((".",), 1, "cannot read .: Is a directory"),
    (("",), 2, "the name of the FILE is empty; standard input is -"),
    (("empty.txt",), 1, "empty.txt is empty"),
    (("binary.dat",), 1, "binary.dat, line 1: a NUL byte, so this is not txt"),
    (("nul.txt",), 1, "nul.txt, line 2: a NUL byte, so this is not txt"),
    (("negative.txt",), 1, "negative.txt, line 2: -6 is negative"),
    (("huge.txt",), 1, f"huge.txt, line 2: {10**30} is over 2,147,483,647; are these lengths?"),
    (("mixed.txt",), 1, f"mixed.txt, line 2: 'some words' {LINES}"),
    (("bad.parquet",), 1, "bad.parquet cannot be read as Parquet: Parquet magic bytes not found"),
    (("table.csv",), 2, "table.csv has 2 columns; choose one with --column: id, text"),
    (("table.csv", "--column", "test"), 2, f"table.csv has no column 'test'; {NEAR}"),
    (("lengths.txt", "--column", "n"), 2, COLUMN),
    (("lengths.txt", "--tokens", "9", "--batch-size", "3"), 2, "--batch-size and --tokens: give one of them"),
    (("lengths.txt", "--padded"), 2, "--padded needs --tokens"),
    (("lengths.txt", "--hidden-size", "3"), 2, "--hidden-size needs --network or --measure"),
    (("lengths.txt", "--training"), 2, "--training needs --network or --measure"),
    (("lengths.txt", "--seconds", "3"), 2, "--seconds needs --measure"),
    (("lengths.txt", "--batch-size", "0"), 2, f"argument --batch-size: {COUNT}, got '0' {HELP}"),
    (("lengths.txt", "--tokens", str(2**31)), 2, f"argument --tokens: {COUNT}, got '{2**31}' {HELP}"),
    (("lengths.txt", "--seed", "-1"), 2, f"argument --seed: a whole number from 0, got '-1' {HELP}"),
    (("lengths.txt", "--measure", "--seconds", "inf"), 2, f"argument --seconds: a number over 0, got 'inf' {HELP}"),
    (("lengths.txt", "--html", "missing/page.html"), 1, "cannot write to missing/page.html: No such file or directory"),
    (("lengths.txt", "--html", "."), 1, "cannot write to .: Is a directory"),
    (("lengths.txt", "more.txt"), 2, "unrecognized arguments: more.txt (see padless --help)"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG, ids=[" ".join(a)[:60] for a, *_ in WRONG])
def test_what_is_wrong_is_one_line_on_standard_error_and_an_exit_code(file, capsys, arguments, code, message):
    for name, content in {
        "empty.txt": b"",
        "binary.dat": bytes([0x89, 0x50, 0x00, 0xFF]),
        "nul.txt": b"4\n\0\n",
        "negative.txt": b"4\n-6\n",
        "huge.txt": b"4\n1" + b"0" * 30,
        "mixed.txt": b"4\nsome words\n",
        "bad.parquet": b"no table",
        "table.csv": b"id,text\n1,a b\n",
    }.items():
        Path(name).write_bytes(content)
    assert cli.main(["report", *arguments]) == code
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"padless: {message}") and err.endswith("\n") and err.count("\n") == 1
    if "Parquet" not in message:  # whose reader has words of its own to add
        assert err == f"padless: {message}\n"


def test_a_file_that_may_not_be_read_is_reported(file, capsys, monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    code = cli.main(["report", file])
    monkeypatch.undo()
    assert (code, capsys.readouterr()) == (1, ("", f"padless: cannot read {file}: Permission denied\n"))


def test_a_page_is_left_as_it_was_where_there_is_no_report(tmp_path, capsys):
    (tmp_path / "old.html").write_text("old")
    for name in ("new.html", "old.html"):
        assert cli.main(["report", str(tmp_path / "missing.txt"), "--html", str(tmp_path / name)]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["old.html"]
    assert (tmp_path / "old.html").read_text() == "old"


def test_names_that_a_terminal_cannot_show_are_escaped(tmp_path):
    path = os.fsencode(tmp_path) + b"/l\xff\n.csv"
    with open(path, "w", encoding="utf-8") as table:
        table.write("l\u00e4nge\n4\n")
    done = subprocess.run(
        [sys.executable, "-m", "padless", "report", path, "--policy", "given"], capture_output=True, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.splitlines()[0].endswith(rb"/l\udcff\n.csv, column l\xe4nge: 1 length, 4 rows")
    missing = run(os.fsdecode(path) + "x")
    assert (
        missing.stderr.endswith("/l\\udcff\\n.csvx: No such file or directory\n")
        and missing.stderr.count("\n") == 1
    )


def test_a_page_that_cannot_be_written_is_reported_before_anything_is_read(capsys):
    assert cli.main(["report", "missing.txt", "--html", "missing/page.html"]) == 1
    assert (
        capsys.readouterr().err == "padless: cannot write to missing/page.html: No such file or directory\n"
    )


def test_random_lengths_of_any_size_make_a_report(tmp_path, capsys):
    chance = random.Random(0)
    path = tmp_path / "lengths.txt"
    path.write_text("".join(f"{int(chance.lognormvariate(3, 1))}\n" for _ in range(20_000)))
    found = json.loads(report(capsys, str(path), "--json"))["policies"]
    fills = {policy["policy"]: policy["fill"] for policy in found}
    assert (
        fills["given"] < 0.5 and fills["bucket"] > 0.85 and fills["binpack"] > 0.97 and fills["sorted"] > 0.95
    )
