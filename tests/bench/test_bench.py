"""`padless bench`: refuses to time what is not equal, tells its numbers in JSON and in a table that fits a terminal."""

from __future__ import annotations

import argparse
import json
import os
import re
from dataclasses import replace
from importlib.util import find_spec

import pytest
import torch

import padless
from padless.backends import _kernels
from padless.bench import cases, command, lengths, plot, steps, table, timing
from padless.cli import command as cli
from padless.errors import DisagreementError

SHAPE = cases.Shape(3, 5, 4)
every_cell = pytest.mark.parametrize("cell", cases.CELLS)
both_modes = pytest.mark.parametrize("train", [False, True], ids=["infer", "train"])


def with_changed(case: cases.Case, contestant: str, result: str, change) -> cases.Case:
    """`case` in which one contestant gives something else for one result."""
    right = case.contestants[contestant]

    def results(found):
        named = right.results(found)
        return {**named, result: change(named[result])}

    wrong = {**case.contestants, contestant: right._replace(results=results)}
    return replace(case, contestants=wrong)


def last_row_off(rows: torch.Tensor) -> torch.Tensor:
    rows = rows.clone()
    rows[-1] += 0.01
    return rows


# ---- equality -----------------------------------------------------------------------------------------


@every_cell
@both_modes
@pytest.mark.parametrize("kind", ["short", "equal"])
def test_every_contestant_computes_the_same(cell, train, kind):
    case = cases.make_case(cell, SHAPE, train=train, lengths=kind)
    assert {"padless portable", "torch packed", "torch padded"} <= set(case.contestants)
    timing.check_equal(case)


@both_modes
@pytest.mark.parametrize("contestant", ["padless portable", "torch padded"])
def test_a_contestant_with_one_wrong_output_row_is_refused(contestant, train):
    case = cases.make_case("LSTM", SHAPE, train=train)
    wrong = with_changed(case, contestant, "output", last_row_off)
    with pytest.raises(DisagreementError, match=f"LSTM .*{contestant}: output differs .* nothing was timed"):
        timing.check_equal(wrong)


@pytest.mark.parametrize("contestant", ["padless portable", "torch padded"])
@pytest.mark.parametrize("result", ["grad input", "grad weight_hh_l0", "grad bias_ih_l0"])
def test_a_contestant_with_a_wrong_gradient_is_refused(contestant, result):
    wrong = with_changed(cases.make_case("GRU", SHAPE, train=True), contestant, result, last_row_off)
    with pytest.raises(DisagreementError, match=f"{contestant}: {result} differs"):
        timing.check_equal(wrong)


def test_a_contestant_that_gives_nan_is_refused():
    case = cases.make_case("RNN", SHAPE, train=False)
    with pytest.raises(DisagreementError, match="differs from torch packed by nan"):
        timing.check_equal(with_changed(case, "torch padded", "output", lambda rows: rows * torch.nan))


def test_a_contestant_without_gradients_is_refused_in_training():
    case = cases.make_case("RNN", SHAPE, train=True)
    right = case.contestants["torch padded"]
    shy = right._replace(results=lambda found: {"output": right.results(found)["output"]})
    case = replace(case, contestants={**case.contestants, "torch padded": shy})
    with pytest.raises(DisagreementError, match="torch padded returned no grad bias_hh_l0, grad bias_ih_l0"):
        timing.check_equal(case)


@pytest.mark.skipif(find_spec("onnxruntime") is None, reason="extra `bench`: onnxruntime is not installed")
@every_cell
def test_onnx_runtime_takes_part_in_inference_and_agrees(cell):
    case = cases.make_case(cell, SHAPE, train=False)
    assert "ONNX Runtime" in case.contestants
    timing.check_equal(case)


@pytest.mark.skipif(find_spec("openvino") is None, reason="extra `bench`: openvino is not installed")
@every_cell
def test_openvino_takes_part_in_inference_and_agrees(cell):
    case = cases.make_case(cell, SHAPE, train=False)
    assert "OpenVINO" in case.contestants
    timing.check_equal(case)


# ---- what is timed --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in lengths.LENGTHS if kind != "stdlib"])
def test_lengths_lie_between_1_and_t_and_repeat_for_a_seed(kind):
    drawn = lengths.draw_lengths(kind, 200, 50, seed=1)
    assert drawn.shape == (200,) and drawn[0] == 50 and drawn.min() >= 1 and drawn.max() <= 50
    assert torch.equal(drawn, lengths.draw_lengths(kind, 200, 50, seed=1))


def test_lengths_of_the_standard_library_are_counted_ones_cut_at_t(monkeypatch):
    monkeypatch.setattr(lengths, "_stdlib_lengths", lambda: torch.tensor([7, 300]))
    assert set(lengths.draw_lengths("stdlib", 40, 100).tolist()) == {7, 100}


@both_modes
def test_flops_count_real_rows_only(train):
    case = cases.make_case("GRU", SHAPE, train=train)
    forward = 2 * case.rows * 3 * 4 * (4 + 4)
    assert case.flops == (3 * forward if train else forward)
    assert case.fill == case.rows / 15


def test_contestants_take_turns():
    calls: list[str] = []
    steps = {name: lambda name=name: calls.append(name) or _spend(0.12) for name in "ab"}
    found = timing.time_by_turns(steps, repeats=2, budget_seconds=60)
    assert calls == ["a", "b", "a", "b"]
    assert all(t.samples == 2 and 0.1 <= t.minimum_seconds <= t.median_seconds for t in found.values())


def test_a_spent_budget_leaves_three_turns():
    found = timing.time_by_turns({"a": lambda: None}, repeats=9, budget_seconds=0)
    assert found["a"].samples == 3


def _spend(seconds: float) -> None:
    now = timing.clock()
    end = now() + seconds
    while now() < end:
        pass


# ---- the command ----------------------------------------------------------------------------------------


@pytest.fixture
def run_small(monkeypatch, capsys):
    """Runs `padless bench` on tiny batches; gives the exit code, standard output and standard error."""

    def run(*arguments: str) -> tuple[int, str, str]:
        sizes = ("--shape", "3,5,4", "--shape", "2,3,4", "--repeats", "1", "--budget", "0")
        code = cli.main(["bench", *sizes, *arguments])
        return code, *capsys.readouterr()

    monkeypatch.setattr(timing, "_LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(timing, "_SGEMM_SIZE", 64)
    return run


def test_json_tells_machine_versions_commit_threads_and_both_products(run_small, tmp_path):
    path = tmp_path / "bench.json"
    code, _, err = run_small("--cell", "GRU", "--json", str(path))
    assert (code, err) == (0, "")
    report = json.loads(path.read_text())
    assert {"date", "machine", "python", "padless", "versions", "commit", "backend", "load"} <= set(report)
    assert (report["threads"], report["clock"], report["lengths"]) == (1, "CPU", "short")
    assert report["versions"]["torch"] == torch.__version__
    assert set(report["sgemm_flops_per_second"]) == {"mkl", "onednn"}
    assert [(r["mode"], r["shape"]) for r in report["results"]] == [
        (mode, shape) for mode in ("train", "infer") for shape in ([3, 5, 4], [2, 3, 4])
    ]
    for result in report["results"]:
        ours, *others = result["contestants"]
        assert ours.startswith("padless ") and list(result["ratios"]) == others
        assert result["fill"] == round(result["rows"] / (result["shape"][0] * result["shape"][1]), 4)
        for timed in result["contestants"].values():
            assert 0 < timed["minimum_seconds"] <= timed["median_seconds"]
            assert timed["samples"] == 1


@pytest.mark.parametrize("file", [(), ("-",)], ids=["no file", "-"])
def test_two_threads_are_measured_in_wall_time_and_put_back(run_small, file):
    code, out, _ = run_small("--cell", "RNN", "--mode", "infer", "--threads", "2", "--json", *file)
    report = json.loads(out)
    assert (code, report["threads"], report["clock"]) == (0, 2, "wall")
    assert torch.get_num_threads() == 1


def test_a_picture_is_written(run_small, tmp_path):
    path = tmp_path / "bench.png"
    code, _, err = run_small("--cell", "RNN", "--plot", str(path))
    assert (code, err) == (0, "")
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_picture_without_matplotlib_is_refused_before_anything_is_timed(run_small, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert run_small("--plot", "bench.png") == (
        2,
        "",
        "padless: --plot needs Matplotlib: pip install matplotlib\n",
    )


def test_contestants_that_disagree_end_the_command_with_exit_code_1(run_small, monkeypatch):
    def make_wrong_case(*arguments, **options):
        return with_changed(make_case(*arguments, **options), "torch padded", "output", last_row_off)

    make_case = cases.make_case
    monkeypatch.setattr(cases, "make_case", make_wrong_case)
    code, _, err = run_small("--cell", "LSTM")
    assert code == 1
    assert err.startswith("padless: LSTM (3, 5, 4): torch padded: output differs") and err.count("\n") == 1


@pytest.mark.parametrize("shape", ["64,100", "0,5,4", "a,b,c", "1,1,99999999999999999999", "1,2,3,4"])
def test_a_shape_that_is_none_is_bad_usage(shape, capsys):
    assert cli.main(["bench", "--shape", shape]) == 2
    message = f"B,T,H are three whole numbers from 1 to 2,147,483,647, got '{shape}'"
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("budget", ["-1", "nan", "inf", "soon"])
def test_a_budget_that_is_no_time_is_bad_usage(budget, capsys):
    assert cli.main(["bench", "--budget", budget]) == 2
    assert f"argument --budget: a number of seconds from 0, got '{budget}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--plot", "x.foo"), 2, "--plot writes files that end in ."),
        (("--plot", "x"), 2, "--plot writes files that end in ."),
        (("--json", "x.svg", "--plot", "./x.svg"), 2, "x.svg is also the file of another option"),
        (("--json", "missing/x.json"), 1, "cannot write to missing/x.json: No such file or directory"),
        (("--json", "."), 1, "cannot write to .: Is a directory"),
        (("--plot", "missing/x.png"), 1, "cannot write to missing/x.png: No such file or directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_reported_before_anything_is_timed(
    arguments, code, message, capsys, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(timing, "sgemm_flops_per_second", lambda: pytest.fail("timed"))
    assert cli.main(["bench", *arguments]) == code
    assert capsys.readouterr().err.startswith(f"padless: {message}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="the full device of Linux")
def test_a_full_disk_is_reported(run_small):
    code, _, err = run_small("--cell", "RNN", "--json", "/dev/full")
    assert (code, err) == (1, "padless: cannot write to /dev/full: No space left on device\n")


def test_the_command_line_offers_every_cell_and_length_without_importing_torch():
    assert cases.CELLS == command._CELLS
    assert tuple(lengths.LENGTHS) == command._LENGTHS


def test_the_summary_is_of_contestants_that_not_every_cell_has_and_follows_the_file(
    run_small, monkeypatch, tmp_path
):
    def make_low_case(cell, *arguments, **options):
        case = make_case(cell, *arguments, **options)
        if cell == "LSTM":  # as where oneDNN has no LSTM in bfloat16
            del case.contestants["torch padded"]
        return case

    def summary(results):
        assert len(json.loads(path.read_text())["results"]) == len(results) == 4
        return right(results)

    make_case, right, path = cases.make_low_case, table.summary, tmp_path / "bench.json"
    monkeypatch.setattr(cases, "make_low_case", make_low_case)
    monkeypatch.setattr(table, "summary", summary)
    cells = ("--cell", "GRU", "--cell", "LSTM")
    code, out, err = run_small("--dtype", "bf16", "--mode", "infer", *cells, "--json", str(path))
    assert (code, err) == (0, "")
    assert re.search(r"infer: .*, [0-9.]+ torch padded$", out, re.MULTILINE)


# ---- the table and the picture ----------------------------------------------------------------------------

NAMES = ("padless native", "padless portable", "torch packed", "torch padded", "ONNX Runtime", "OpenVINO")


def result(shape: list[int], seconds: float, ratio: float) -> dict:
    timed = {"median_seconds": seconds, "minimum_seconds": seconds, "samples": 9, "percent_of_sgemm": 90.4}
    return {
        "cell": "LSTM",
        "mode": "infer",
        "shape": shape,
        "rows": 1,
        "fill": 0.5,
        "contestants": dict.fromkeys(NAMES, timed),
        "ratios": dict.fromkeys(NAMES[1:], ratio),
    }


def test_the_table_has_a_line_a_shape_and_fits_110_columns():
    results = [result([64, 2000, 1024], 12.3456789, 2.0), result([1, 20, 4], 1e-6, 8.0)]
    lines = table.render(results).splitlines()
    assert max(map(len, lines)) <= 110
    assert " ".join(lines[3].split()) == "64,2000,1024 0.50 12345.679 90 2.00 2.00 2.00 1.00 2.00 2.00"
    assert " ".join(lines[5].split()) == "geometric mean 4.00 4.00 4.00 2.00 4.00 4.00"


def test_the_table_tells_the_ratio_to_torch_padded_times_the_fill():
    head, line = table.render([result([1, 2, 3], 1.0, 3.0)]).splitlines()[2:]
    assert head.split()[7:9] == ["padded", "at"]
    assert line.split()[6:8] == ["3.00", "1.50"]


def test_the_summary_has_a_geometric_mean_for_each_mode():
    results = [result([1, 2, 3], 1.0, 2.0), result([1, 2, 3], 1.0, 8.0)]
    assert "infer: 4.00 padless portable, 4.00 torch packed" in table.summary(results)


def low_case(dtype: str, precision: str) -> cases.Case:
    return cases.make_low_case("GRU", SHAPE, train=False, dtype=dtype, precision=precision)


LOW = [("bf16", "highest"), ("float32", "high"), ("float32", "medium")]


def test_every_contestant_has_a_colour_and_a_marker_of_its_own():
    for names in (NAMES, *(low_case(*low).contestants for low in LOW)):
        styles = [plot._STYLES[name] for name in names]
        assert len({color for color, _ in styles}) == len({marker for _, marker in styles}) == len(names)


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        (("--dtype", "bf16"), "bf16"),
        (("--precision", "high"), "float32 at precision 'high'"),
        ((), "float32"),
    ],
)
def test_the_picture_tells_dtype_and_precision_and_shows_padless(
    run_small, tmp_path, monkeypatch, arguments, title
):
    monkeypatch.setitem(pytest.importorskip("matplotlib").rcParams, "svg.fonttype", "none")  # text stays text
    path = tmp_path / "bench.svg"
    assert run_small("--cell", "GRU", "--mode", "infer", "--plot", str(path), *arguments)[0] == 0
    picture = path.read_text()
    assert f", {title}, lengths" in picture
    assert f">padless {arguments[-1] if arguments else 'portable'}<" in picture


def test_options_default_to_one_thread_and_the_lengths_that_targets_are_stated_for():
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    options = parser.parse_args([])
    assert (options.threads, options.lengths, options.repeats) == (1, "short", 9)


@both_modes
@pytest.mark.parametrize(("dtype", "precision"), [("bf16", "highest"), ("float32", "high")])
def test_a_case_in_low_precision_is_held_against_padless_in_float32(train, dtype, precision):
    case = cases.make_low_case("LSTM", SHAPE, train=train, dtype=dtype, precision=precision)
    timing.check_equal(case)
    ours = "padless bf16" if dtype == "bf16" else "padless high"
    assert list(case.contestants)[:2] == [ours, cases.FLOAT32]
    assert torch.get_float32_matmul_precision() == "highest"
    with pytest.raises(DisagreementError, match=ours):
        timing.check_equal(with_changed(case, ours, "output", lambda rows: rows + 1))


@pytest.mark.skipif("native" not in padless.backends.available(), reason="the native kernels were not built")
def test_a_precision_that_changes_nothing_here_is_said(capsys):
    arguments = [
        "--precision",
        "high",
        "--cell",
        "RNN",
        "--mode",
        "infer",
        "--shape",
        "2,3,4",
        "--repeats",
        "1",
    ]
    try:
        for isa in ("baseline", "amx_emulated"):
            _kernels.force_isa(isa)
            assert cli.main(["bench", *arguments, "--budget", "0.1"]) == 0
            assert ("in float32, as" in capsys.readouterr().out) == (isa == "baseline")
    finally:
        _kernels.force_isa(os.environ.get("PADLESS_ISA"))


def test_a_precision_beside_bfloat16_is_bad_usage(capsys):
    assert cli.main(["bench", "--dtype", "bf16", "--precision", "high"]) == 2
    assert "--precision" in capsys.readouterr().err


# ---- calls of one or a few steps ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", "bf16"])
def test_steps_are_timed_on_every_kind_of_input(dtype, tmp_path, capsys, monkeypatch):
    found = set()
    checked = steps.check_contestants

    def check(contestants, *arguments, **options):
        found.add((options["eps"], *(c.step()[0].data.dtype for c in contestants.values())))
        checked(contestants, *arguments, **options)

    monkeypatch.setattr(steps, "check_contestants", check)
    path = tmp_path / "steps.json"
    arguments = [
        "--steps",
        "--cell",
        "GRU",
        "--shape",
        "2,1,8",
        "--shape",
        "3,2,8",
        "--repeats",
        "1",
        "--budget",
        "0.1",
        "--dtype",
        dtype,
    ]
    assert cli.main(["bench", *arguments, "--json", str(path)]) == 0
    expected = {"bf16": torch.bfloat16}.get(dtype) or getattr(torch, dtype)
    wide = (torch.float32,) if dtype == "bf16" else ()
    assert found == {(torch.finfo(expected).eps, expected, expected, *wide)}
    assert json.loads(path.read_text())["dtype"] == dtype
    printed = capsys.readouterr().out
    assert "GRU train" in printed and "GRU infer" in printed and "       3,2,8" in printed
    entries = json.loads(path.read_text())["results"]
    assert [(e["mode"], e["shape"]) for e in entries] == [
        (mode, shape) for mode in ("train", "infer") for shape in ([2, 1, 8], [3, 2, 8])
    ]
    for entry in entries:
        assert list(entry["kinds"]) == ["padded", "PackedSequence", "Packed"]
        for kind in entry["kinds"].values():
            assert kind["ratio"] == kind["padless"] / kind["torch"] > 0
            assert ("padless float32" in kind) == (dtype == "bf16")
    assert ("over padless float32" in printed) == (dtype == "bf16")


def test_steps_that_disagree_are_not_timed(monkeypatch):
    right = padless.nn.GRU.forward
    monkeypatch.setattr(
        padless.nn.GRU, "forward", lambda self, x, hx: (right(self, x, hx)[0], right(self, x, hx)[1] + 1)
    )
    monkeypatch.setattr(steps, "time_by_turns", lambda *_, **__: pytest.fail("timed"))
    with pytest.raises(DisagreementError, match="padded: padless: h_n"):
        steps.time_steps("GRU", SHAPE, train=False)


def test_options_without_effect_on_steps_are_bad_usage(capsys):
    assert cli.main(["bench", "--steps", "--lengths", "equal"]) == 2
    assert capsys.readouterr().err == "padless: --lengths has no effect on --steps; leave it out\n"
    assert cli.main(["bench", "--dtype", "float64"]) == 2
    assert capsys.readouterr().err == "padless: --dtype float64 goes with --steps only\n"


@pytest.mark.parametrize(
    ("arguments", "rounds"),
    [((), "1 round(s)"), (("--quick",), "3 round(s)"), (("--repeats", "2"), "2 round(s)")],
)
def test_the_heading_tells_how_many_rounds_are_timed(run_small, arguments, rounds):
    code, out, _ = run_small("--steps", "--cell", "RNN", "--mode", "infer", *arguments)
    assert code == 0
    assert f"the least of up to {rounds}\n" in out
