"""The command line as its users meet it: exit codes, one line on stderr, and a quick start."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys

import pytest
import torch

import padless
from padless.cli import command as cli


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "padless", *arguments],
        capture_output=True, text=True, timeout=200, env={**os.environ, "COLUMNS": "200", **environment},
    )  # fmt: skip


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, message: str) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (code, "", f"padless: {message}\n")


# ---- help ---------------------------------------------------------------------------------------------


def test_version_is_reported():
    done = run("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"padless {padless.__version__}\n", "")


COMMANDS = ("demo", "draw", "bench", "report", "doctor", "completion")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_help_is_reported_on_stdout_with_examples(command):
    done = run(*command, "--help", COLUMNS="80")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: {' '.join(('padless', *command))} ")
    assert max(map(len, done.stdout.splitlines())) <= 80
    examples = done.stdout.split("\nexamples:\n")[1].split("\n\n")[0].splitlines()
    assert examples and all(line.startswith("  ") and "padless " in line for line in examples)


def test_every_command_is_listed_with_what_it_does():
    listed = [line.split(maxsplit=1) for line in run("--help").stdout.splitlines() if line.startswith("    ")]
    assert {line[0] for line in listed if len(line) == 2} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_in_a_help_are_commands_that_parse(name):
    text = run(name, "--help").stdout.split("\nexamples:\n")[1]
    calls = re.findall(r"padless ((?:[^|)#>\n\"]|\"[^\"]*\")+)", text)
    assert calls
    for call in calls:
        assert cli._parser().parse_args(shlex.split(call)).command is not None


def test_version_has_a_short_form():
    assert run("-V").stdout == run("--version").stdout


@pytest.mark.parametrize("arguments", [("--help",), ("--version",), *((name, "--help") for name in COMMANDS)])
def test_help_and_version_import_neither_torch_nor_numpy(arguments):
    code = (
        "import sys, padless.cli\n"
        "try: padless.cli.main(sys.argv[1:])\n"
        "except SystemExit as end: assert end.code in (0, None), end.code\n"
        "assert not {'torch', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


# ---- bad usage ----------------------------------------------------------------------------------------

BAD_USAGE = [
    ((), "the following arguments are required: COMMAND (see padless --help)"),
    (
        ("demo", "--epoch", "x"),
        "argument --epochs: invalid int value: 'x' (see padless demo --help)",
    ),
    (("demo", "--epochs"), "argument --epochs: expected one argument (see padless demo --help)"),
    (("demo", "--epochs", "0"), "--epochs must be at least 1, got 0"),
    (("demo", "again"), "unrecognized arguments: again (see padless --help)"),
    (
        ("bench", "--threads", "0"),
        "argument --threads: a whole number from 1 to 256, got '0' (see padless bench --help)",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD_USAGE, ids=[" ".join(a) or "none" for a, _ in BAD_USAGE]
)
def test_bad_usage_is_one_line_and_exit_code_2(arguments, message, tmp_path):
    assert_one_line(run(*arguments), 2, message)


@pytest.mark.parametrize("arguments", [("dance",), ("bench", "--cell", "CNN")])
def test_a_choice_that_is_not_there_is_one_line_with_those_that_are(arguments):
    done = run(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith("padless: ") and "invalid choice" in done.stderr


# ---- failures -----------------------------------------------------------------------------------------


def test_an_unwritable_folder_is_one_line_and_exit_code_1(tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "below"
    assert_one_line(run("demo", "--out", str(out)), 1, f"cannot write to {out}: Not a directory")


def test_a_backend_that_is_not_there_is_one_line_and_exit_code_1():
    done = run("doctor", PADLESS_BACKEND="portabel")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("padless: PADLESS_BACKEND: there is no backend 'portabel'")
    assert done.stderr.endswith("did you mean 'portable'?\n")


@pytest.mark.skipif(os.name != "posix", reason="pipes of POSIX")
def test_a_reader_that_has_gone_ends_it_without_a_word():
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "padless", "doctor"], stdout=writing, stderr=subprocess.PIPE, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.skipif(os.name != "posix", reason="the shell of POSIX")
@pytest.mark.parametrize("arguments", ["draw 4 6", "doctor", "completion bash", "--help"])
def test_a_closed_standard_output_is_one_line_and_exit_code_1(arguments):
    done = subprocess.run(
        ["sh", "-c", f'"$0" -m padless {arguments} >&-', sys.executable],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert_one_line(done, 1, "cannot write to standard output: it is closed")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the full device of Linux")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("arguments", ["--version", "draw --help", "draw 4 6", "report -"])
def test_a_full_standard_output_is_one_line_and_exit_code_1(arguments, unbuffered):
    done = subprocess.run(
        ["sh", "-c", f'echo 4 | "$0" -m padless {arguments} >/dev/full', sys.executable],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
    )  # fmt: skip
    assert_one_line(done, 1, "cannot write to standard output: No space left on device")


@pytest.mark.skipif(os.name != "posix", reason="the shell of POSIX")
def test_a_closed_standard_error_leaves_standard_output_clean():
    done = subprocess.run(
        ["sh", "-c", '"$0" -m padless draw missing 2>&-', sys.executable],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


# ---- doctor -------------------------------------------------------------------------------------------


def test_doctor_tells_the_backend_and_why():
    done = run("doctor", PADLESS_BACKEND="portable")
    assert (done.returncode, done.stderr) == (0, "")
    facts = dict(line.split(maxsplit=1) for line in done.stdout.splitlines() if " set " not in line)
    assert facts["backend"] == "portable" and facts["why"] == "chosen by PADLESS_BACKEND"
    assert facts["padless"] == padless.__version__


def test_doctor_tells_the_same_as_json():
    done = run("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    facts = json.loads(done.stdout)
    assert facts["available"] == list(padless.backends.available())
    assert facts["backend"] in facts["available"]
    assert facts["threads"] >= 1 and facts["why"]


# ---- bench --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bench_writes_its_numbers_as_json_and_nothing_else():
    done = run("bench", "--quick", "--cell", "RNN", "--mode", "infer", "--budget", "0.1", "--json", "-")
    assert (done.returncode, done.stderr) == (0, "")
    report = json.loads(done.stdout)
    assert {(result["cell"], result["mode"]) for result in report["results"]} == {("RNN", "infer")}
    for result in report["results"]:
        assert {"torch packed", "torch padded"} < set(result["contestants"])
        assert all(timed["median_seconds"] > 0 for timed in result["contestants"].values())


# ---- the function -------------------------------------------------------------------------------------


def test_main_gives_the_exit_code_back_and_raises_nothing(capsys):
    assert cli.main(["demo", "--epochs", "-1"]) == 2
    assert capsys.readouterr().err == "padless: --epochs must be at least 1, got -1\n"


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], "padless demo --resume --out runs/demo"),
        (["--quick", "--resume"], "padless demo --resume --quick --out runs/demo"),
        (["--epochs", "7", "--out", "a b"], "padless demo --resume --epochs 7 --out 'a b'"),
    ],
)
def test_an_interrupted_demo_names_the_command_that_goes_on(arguments, command, capsys, monkeypatch):
    def interrupted(**options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("padless.demo.command.run_demo", interrupted)
    assert cli.main(["demo", *arguments]) == 1
    assert capsys.readouterr().err == f"padless: interrupted; go on with: {command}\n"


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.nn.LSTM(2**31 - 1, 256),
        lambda: torch.zeros(2**31, 2**31, 2**31),
        lambda: bytearray(2**62),
    ],
    ids=["layer", "overflow", "Python"],
)
def test_sizes_over_the_memory_are_one_line_and_exit_code_1(make, capsys, monkeypatch):
    monkeypatch.setattr("padless.bench.command.run", lambda options: make())
    assert cli.main(["bench"]) == 1
    assert capsys.readouterr().err == "padless: not enough memory for batches or layers of this size\n"


def test_other_errors_of_torch_are_not_hidden(monkeypatch):
    monkeypatch.setattr("padless.bench.command.run", lambda options: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        cli.main(["bench"])


def test_an_interrupt_while_the_command_line_loads_is_one_line_too():
    code = (
        "import sys, padless.cli\n"
        "class Interrupt:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'padless.draw.command':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupt())\n"
        "sys.exit(padless.cli.main(['draw', '4']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "padless: interrupted\n")


def test_another_command_that_is_interrupted_says_only_so(capsys, monkeypatch):
    def interrupted(options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("padless.bench.command.run", interrupted)
    assert cli.main(["bench"]) == 1
    assert capsys.readouterr().err == "padless: interrupted\n"
