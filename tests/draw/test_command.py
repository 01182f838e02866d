"""`padless draw` as its users meet it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from padless.cli import command as cli
from padless.draw import draw_html, draw_svg, draw_text

from .kit import EIGHT

WORDS = [f"{length}" for length in EIGHT]
LAST = "45 of 64 cells are real: 19 of 64 multiplications saved"


def run(*arguments: str, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = {**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8", **environment}
    return subprocess.run(
        [sys.executable, "-m", "padless", "draw", *arguments],
        capture_output=True, text=True, encoding="utf-8", timeout=60, input=stdin, env=settings,
    )  # fmt: skip


def assert_drawn(done: subprocess.CompletedProcess[str], text: str) -> None:
    assert (done.returncode, done.stdout, done.stderr) == (0, text + "\n", "")


# ---- lengths ------------------------------------------------------------------------------------------


def test_lengths_on_the_command_line_are_drawn():
    done = run(*WORDS)
    assert_drawn(done, draw_text(EIGHT))
    assert done.stdout.splitlines()[-1] == LAST


@pytest.mark.parametrize("arguments", [["4,6,8"], ["4,", "6,", "8"], ["4", "6.0", "8"], ["4", "6", "8e0"]])
def test_lengths_may_be_written_with_commas_and_as_whole_floats(arguments, capsys):
    assert cli.main(["draw", *arguments]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("18 of 24 cells are real")


def test_a_file_is_read_as_report_reads_it(tmp_path):
    path = tmp_path / "lengths.csv"
    path.write_text("name,length\n" + "".join(f"x,{length}\n" for length in EIGHT), encoding="utf-8")
    assert_drawn(run(str(path), "--column", "length"), draw_text(EIGHT))


def test_words_of_a_file_are_counted_where_that_is_asked(tmp_path):
    path = tmp_path / "words.txt"
    path.write_text("1 2 3\n4\n", encoding="utf-8")
    assert_drawn(run(str(path), "--words"), draw_text([3, 1]))


def test_standard_input_is_a_dash():
    assert_drawn(run("-", stdin="\n".join(WORDS)), draw_text(EIGHT))
    assert_drawn(run("-", "--format", "jsonl", stdin='"a b"\n"c"\n'), draw_text([2, 1]))


# ---- where it goes ------------------------------------------------------------------------------------


def test_pictures_are_written_and_their_paths_reported(tmp_path):
    svg, html, png = (tmp_path / f"batch.{kind}" for kind in ("svg", "html", "png"))
    pytest.importorskip("matplotlib")
    done = run(*WORDS, "--svg", str(svg), "--html", str(html), "--png", str(png))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"wrote {svg}\nwrote {html}\nwrote {png}\n"
    assert svg.read_text(encoding="utf-8") == draw_svg(EIGHT)
    assert html.read_text(encoding="utf-8") == draw_html(EIGHT)
    assert png.read_bytes().startswith(b"\x89PNG")


def test_pictures_of_a_file_are_named_after_it(tmp_path):
    path = tmp_path / "a<b>&.txt"
    path.write_text("3\n2\n", encoding="utf-8")
    out = tmp_path / "out.html"
    assert run(str(path), "--html", str(out)).returncode == 0
    assert out.read_text(encoding="utf-8") == draw_html([3, 2], name=str(path))


@pytest.mark.skipif(os.name != "posix", reason="file names of bytes")
def test_a_file_s_name_may_be_of_any_bytes(tmp_path):
    path = tmp_path / os.fsdecode(b"a\xff\x1b.txt")
    path.write_text("3\n2\n", encoding="utf-8")
    for kind in ("svg", "html"):
        done = run(str(path), f"--{kind}", f"{path}.{kind}")
        assert (done.returncode, done.stderr) == (0, "")
        assert r"a\udcff\x1b.txt" in Path(f"{path}.{kind}").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "environment", "is_coloured"),
    [
        ([], {}, False),  # a pipe
        (["--color", "always"], {}, True),
        (["--color", "always"], {"NO_COLOR": "1"}, True),  # who says always means it
        (["--color", "never"], {}, False),
    ],
)
def test_colours_are_for_terminals_and_who_asks(arguments, environment, is_coloured):
    done = run(*WORDS, *arguments, **environment)
    assert ("\033[" in done.stdout) is is_coloured


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
@pytest.mark.parametrize(
    ("environment", "is_coloured"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_a_terminal_gets_colours_unless_it_cannot_or_will_not(environment, is_coloured):
    import pty

    settings = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    main, side = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "padless", "draw", "3", "2"],
        stdout=side, stderr=subprocess.PIPE, timeout=60, env={**settings, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(side)
    text = os.read(main, 10_000).decode()
    os.close(main)
    assert (done.returncode, done.stderr) == (0, b"")
    assert ("\033[" in text) is is_coloured


def test_the_width_is_the_terminal_s():
    assert_drawn(run(*WORDS, COLUMNS="50"), draw_text(EIGHT, width=50))
    assert_drawn(run(*WORDS, COLUMNS="1"), draw_text(EIGHT, width=40))


def test_an_output_without_block_characters_gets_ascii():
    assert_drawn(run("100", "300", PYTHONIOENCODING="ascii"), draw_text([100, 300], ascii_only=True))


# ---- what is wrong ------------------------------------------------------------------------------------

LONG = "9" * 5_000
USAGE = [
    ([], "no lengths: give them, or a FILE, or - for standard input (see padless draw --help)"),
    ([" , "], "no lengths: give them, or a FILE, or - for standard input (see padless draw --help)"),
    (["0", "0"], "all lengths are 0, so there is nothing to draw"),
    (["4", "-3"], "lengths[1] = -3 is negative"),
    (["4", "6.5"], "lengths[1] = 6.5 is not a whole number"),
    (["1e999"], "lengths[0] = inf is not a whole number"),
    (["99999999999999999999"], "lengths[0] = 99999999999999999999 does not fit into 64 bits"),
    ([LONG], "lengths[0] = 999999999999... does not fit into 64 bits"),
    (["4", "six"], "'six' is not a length; give lengths only, or one FILE"),
    (["4,6", "foo"], "'foo' is not a length; give lengths only, or one FILE"),
    (["a.txt", "b.txt"], "'a.txt' is not a length; give lengths only, or one FILE"),
    (["4", "--column", "n"], "--column needs a FILE, but lengths were given"),
    (["4", "--format", "csv"], "--format needs a FILE, but lengths were given"),
    (["4", "--words"], "--words needs a FILE, but lengths were given"),
]


@pytest.mark.parametrize(("arguments", "message"), USAGE, ids=[" ".join(a)[:20] or "none" for a, _ in USAGE])
def test_bad_usage_is_one_line_and_exit_code_2(arguments, message, capsys):
    assert cli.main(["draw", *arguments]) == 2
    assert capsys.readouterr() == ("", f"padless: {message}\n")


def test_more_than_a_page_shows_is_one_line_and_exit_code_2(tmp_path, capsys):
    path = tmp_path / "batch.html"
    assert cli.main(["draw", "1000000001", "--html", str(path)]) == 2
    message = "lengths[0] = 1000000001 is longer than the page draws (1,000,000,000 steps)"
    assert capsys.readouterr() == ("", f"padless: {message}\n")
    assert not path.exists()


def failing(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["draw", *arguments]) == 1
    assert capsys.readouterr() == ("", f"padless: {message}\n")


def test_a_file_that_is_not_there_is_one_line_and_exit_code_1(tmp_path, capsys):
    path = tmp_path / "no.txt"
    failing([str(path)], f"cannot read {path}: No such file or directory", capsys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "{path} is empty"),
        (b"0\n0\n", "all lengths are 0, so there is nothing to draw"),
        (b"4\n-3\n", "{path}, line 2: -3 is negative"),
    ],
)
def test_a_file_that_cannot_be_drawn_is_one_line_and_exit_code_1(content, message, tmp_path, capsys):
    path = tmp_path / "lengths.txt"
    path.write_bytes(content)
    failing([str(path)], message.format(path=path), capsys)


def test_too_many_sequences_for_a_page_are_one_line_and_exit_code_1(tmp_path, capsys):
    path = tmp_path / "lengths.txt"
    path.write_text("1\n" * 10_001, encoding="utf-8")
    message = "lengths has 10,001 sequences, but the page draws at most 10,000: draw one batch of them"
    outputs = ["--svg", str(tmp_path / "batch.svg"), "--html", str(tmp_path / "batch.html")]
    failing([str(path), *outputs], message, capsys)
    assert [each.name for each in tmp_path.iterdir()] == ["lengths.txt"]


@pytest.mark.parametrize("kind", ["svg", "html", "png"])
def test_an_unwritable_path_is_one_line_and_exit_code_1(kind, tmp_path, capsys):
    if kind == "png":
        pytest.importorskip("matplotlib")
    path = tmp_path / "no" / "batch"
    outputs = ["--svg", str(tmp_path / "written.svg"), f"--{kind}", str(path)]
    failing(["4", *outputs], f"cannot write to {path}: No such file or directory", capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="pipes that have a path")
def test_a_pipe_is_opened_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen(["cat", pipe], stdout=subprocess.PIPE, text=True) as reader:
        assert run(*WORDS, "--svg", str(pipe)).returncode == 0
        assert reader.communicate(timeout=60)[0] == draw_svg(EIGHT)
    assert run(*WORDS, "--svg", "/dev/stdout").stdout == draw_svg(EIGHT) + "wrote /dev/stdout\n"


def test_a_name_that_is_too_long_is_one_line_and_exit_code_1(tmp_path, capsys):
    path = tmp_path / ("a" * 300)
    failing(["4", "--svg", str(path)], f"cannot write to {path}: File name too long", capsys)


def test_without_matplotlib_a_png_is_one_line_and_exit_code_1(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    message = "pictures need Matplotlib: pip install matplotlib"
    failing(["4", "--png", str(tmp_path / "batch.png")], message, capsys)


# ---- how it starts ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text", "svg", "html"])
def test_neither_torch_nor_numpy_is_imported(kind, tmp_path):
    options = [] if kind == "text" else [f"--{kind}", str(tmp_path / "batch")]
    code = (
        "import sys, padless.cli\n"
        "assert padless.cli.main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'pyarrow', 'shtab'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "draw", *WORDS, *options], capture_output=True, text=True, timeout=60,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name != "posix", reason="CPU time of child processes")
def test_it_takes_a_few_times_the_cpu_time_of_python_itself():
    """0.06 s where Python takes 0.013; torch alone would take 2.3. The best of five each, for the machine is shared."""

    def seconds(*command: str) -> float:
        def once() -> float:
            before = os.times()
            subprocess.run([sys.executable, *command], stdout=subprocess.DEVNULL, check=True, timeout=60)
            after = os.times()
            return after.children_user + after.children_system - before.children_user - before.children_system

        return min(once() for _ in range(5))

    bare = max(seconds("-c", "pass"), 0.02)  # the clock ticks in hundredths
    assert seconds("-m", "padless", "draw", *WORDS) < 12 * bare


def test_a_billion_steps_are_drawn_at_once_in_every_way(tmp_path, capsys):
    paths = {kind: tmp_path / f"batch.{kind}" for kind in ("svg", "html")}
    lengths = ["1000000000", "5", "100000000"]
    assert cli.main(["draw", *lengths]) == 0
    assert cli.main(["draw", *lengths, *(f"--{kind}={path}" for kind, path in paths.items())]) == 0
    assert all(Path(path).stat().st_size < 200_000 for path in paths.values())


def test_an_output_that_is_the_input_or_another_output_is_refused_and_nothing_is_written(tmp_path):
    lengths = tmp_path / "lengths.txt"
    lengths.write_text("4\n6\n8\n")
    picture = tmp_path / "picture.svg"
    for arguments, text in (
        (["draw", str(lengths), "--svg", str(lengths)], "is also the file to read"),
        (["report", str(lengths), "--html", str(lengths)], "is also the file to read"),
        (
            ["draw", "4", "6", "--svg", str(picture), "--html", str(picture)],
            "is also the file of another option",
        ),
    ):
        found = subprocess.run(
            [sys.executable, "-m", "padless", *arguments], capture_output=True, text=True, timeout=60
        )
        assert found.returncode == 2
        assert text in found.stderr and found.stderr.startswith("padless")
    assert lengths.read_text() == "4\n6\n8\n"
    assert not picture.exists()
