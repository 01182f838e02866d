"""Completion as the shells themselves give it: bash, zsh and fish are run, and asked what they would offer."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from padless.cli import command as cli
from padless.cli import completion

pytest.importorskip("shtab", reason="completion is made by shtab")

COMMANDS = {"bench", "completion", "demo", "doctor", "draw", "report"}
DRAW = {"--svg", "--png", "--html", "--column", "--format", "--words", "--color", "--help"}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a script a shell, and files to complete."""
    folder = tmp_path_factory.mktemp("completion")
    for shell in ("bash", "zsh", "fish"):
        done = subprocess.run(
            [sys.executable, "-m", "padless", "completion", shell], capture_output=True, text=True, timeout=60
        )
        assert (done.returncode, done.stderr) == (0, "")
        (folder / f"script.{shell}").write_text(done.stdout, encoding="utf-8")
    (folder / "functions").mkdir()
    (folder / "functions" / "_padless").write_text(
        (folder / "script.zsh").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (folder / "lengths.txt").touch()
    return folder


def shell(name: str, *arguments: str, folder: Path, text: str | None = None) -> str:
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    done = subprocess.run(
        [name, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
        input=text,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


ASK_BASH = """
eval "$(cat script.bash)"
words=($1); [ "${1: -1}" = " " ] && words+=("")
COMP_WORDS=("${words[@]}"); COMP_CWORD=$((${#words[@]} - 1)); COMP_LINE="$1"; COMP_POINT=${#1}; COMPREPLY=()
complete=$(complete -p padless); complete=${complete#*-F }
${complete%% *} padless "${words[-1]}" "${words[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
# What zsh has to offer is kept from its own function `compadd`, instead of being drawn in a terminal.
ASK_ZSH = """
zmodload zsh/zpty
zpty z zsh -f -i
zpty -w z "PS1=; unsetopt zle_bracketed_paste beep; fpath=($PWD/functions \\$fpath)"
zpty -w z 'autoload -Uz compinit; compinit -u -D'
zpty -w z 'compadd() { local -a found; builtin compadd -A found "$@"; print -rl -- $found >> offered
builtin compadd "$@" }'
zpty -w z 'bindkey "^I" complete-word; print REA""DY'
zpty -r -m z seen '*READY*'
zpty -w -n z "$1"$'\\t'
zpty -w -n z $'\\C-a\\C-k'
zpty -w z 'print DO""NE'
zpty -r -m z seen '*DONE*'
"""


def offered(name: str, line: str, folder: Path) -> set[str]:
    """What the shell offers behind `line`."""
    if name == "fish":
        text = shell(
            "fish", "--no-config", "-c", "source script.fish; complete -C $argv[1]", line, folder=folder
        )
        return {choice.split("\t")[0] for choice in text.splitlines()}
    if name == "bash":
        return set(shell("bash", "--norc", "-c", ASK_BASH, "bash", line, folder=folder).split())
    (folder / "offered").unlink(missing_ok=True)
    shell("zsh", "-f", "-c", ASK_ZSH, "zsh", line, folder=folder)
    found = folder / "offered"
    return set(found.read_text(encoding="utf-8").split()) if found.exists() else set()


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_commands_are_completed(name, scripts):
    assert offered(name, "padless ", scripts) >= COMMANDS
    assert offered(name, "padless d", scripts) >= {"demo", "doctor", "draw"}


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_options_of_a_command_are_completed(name, scripts):
    assert offered(name, "padless draw --", scripts) >= DRAW


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_choices_of_an_option_are_completed(name, scripts):
    assert offered(name, "padless draw --color ", scripts) == {"auto", "always", "never"}


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_shells_are_completed(name, scripts):
    assert offered(name, "padless completion ", scripts) >= {"bash", "zsh", "fish"}


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("line", ["padless draw len", "padless draw --svg len", "padless report len"])
def test_files_are_completed(name, line, scripts):
    assert "lengths.txt" in offered(name, line, scripts)


def test_zsh_takes_the_script_by_eval_too(scripts):
    text = shell(
        "zsh",
        "-f",
        "-c",
        'autoload -Uz compinit; compinit -u -D; eval "$(cat script.zsh)"; print $_comps[padless]',
        folder=scripts,
    )
    assert text.strip() == "_shtab_padless"


def test_bash_takes_the_script_as_a_file(scripts):
    text = shell("bash", "--norc", "-c", ". ./script.bash; complete -p padless", folder=scripts)
    assert " -F " in text


def test_an_option_that_is_new_is_completed_without_a_word_elsewhere():
    parser = argparse.ArgumentParser("padless")
    parser.add_subparsers(metavar="COMMAND").add_parser("new", help="new").add_argument(
        "--brand-new", metavar="FILE"
    )
    script = completion.script(parser, "bash")
    assert "--brand-new" in script and "_shtab_compgen_files" in script


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["completion"], "the following arguments are required: shell (see padless completion --help)"),
        (["completion", "cmd"], "argument shell: invalid choice: 'cmd' "),
    ],
)
def test_a_shell_that_is_none_is_bad_usage(arguments, message, capsys):
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and err.startswith(f"padless: {message}")


def test_without_shtab_it_names_the_extra(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert cli.main(["completion", "bash"]) == 1
    message = "shell completion needs shtab: pip install shtab"
    assert capsys.readouterr() == ("", f"padless: {message}\n")
