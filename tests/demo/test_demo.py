"""The demo: its data, its twins, and above all its checkpoint, which no kill may spoil."""

from __future__ import annotations

import errno
import json
import os
import random
import shlex
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from padless.demo import command
from padless.demo import train as training
from padless.demo.compare import CONTESTANTS, compare
from padless.demo.data import Data, Function, read_functions, to_data
from padless.demo.model import packed_twin, padded_twin
from padless.demo.train import Settings, epoch_batches, loss_of, new_run, read_checkpoint, resume_run
from padless.errors import PadlessError, UsageError

from . import kit as demo_kit

posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits of POSIX")


@pytest.fixture(scope="module")
def data() -> Data:
    return demo_kit.small_data()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The weights at the end of a run that nobody killed."""
    out = tmp_path_factory.mktemp("undisturbed")
    code, _, error = demo_kit.finish(demo_kit.start("train", out, "never"))
    assert (code, error) == (0, "")
    return demo_kit.weights(out / "checkpoint.pt")


@pytest.fixture
def checkpoint(tmp_path: Path, data: Data) -> Path:
    """A run of two epochs in all, saved after the first."""
    run = new_run(Settings(**demo_kit.SHORTENED), data)
    training.train(run, data, epochs=1, path=tmp_path / "checkpoint.pt")
    return tmp_path / "checkpoint.pt"


def assert_same_bits(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        assert torch.equal(tensor, right[name]), name


# ---- killed -------------------------------------------------------------------------------------------


@pytest.mark.slow
@posix
def test_killed_at_random_moments_it_ends_with_the_same_bits(tmp_path, undisturbed):
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    out = tmp_path / "killed"
    out.mkdir()
    for _ in range(4):
        process = demo_kit.start("train", out, "never")
        assert process.stdout is not None
        for _ in range(chance.randrange(2, 2 * demo_kit.STEPS)):
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode in (-signal.SIGKILL, 0), f"seed {seed}"
    code, _, error = demo_kit.finish(demo_kit.start("train", out, "never"))
    assert (code, error) == (0, ""), f"seed {seed}"
    assert_same_bits(demo_kit.weights(out / "checkpoint.pt"), undisturbed)


@pytest.mark.slow
@posix
def test_killed_while_the_checkpoint_is_written_it_ends_with_the_same_bits(tmp_path, undisturbed):
    deaths = [  # how a process ends, and the number of epochs that the checkpoint holds as it begins
        ("write 1", 0),  # half of the very first file
        ("fsync 3", 0),  # saved at the start (two calls); then the whole file of epoch 1, not yet renamed
        ("replace 2", 0),
        ("fsync 4", 0),  # renamed, the folder not yet synced: epoch 1 is done
        ("write 1", 1),  # half of the file of epoch 2
        ("write 2", 1),  # half of the file of epoch 3
        ("never", 2),
    ]
    for when, epochs in deaths:
        code, out, error = demo_kit.finish(demo_kit.start("train", tmp_path, when))
        assert out.startswith(f"resumed at {epochs}\n"), (when, error)
        assert code == (0 if when == "never" else -signal.SIGKILL), (when, error)
    assert_same_bits(demo_kit.weights(tmp_path / "checkpoint.pt"), undisturbed)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


@pytest.mark.slow
@posix
def test_ctrl_c_names_the_command_that_goes_on_and_that_command_ends_with_the_same_bits(tmp_path):
    out, other = tmp_path / "it's interrupted", tmp_path / "undisturbed"
    for _ in range(3):
        process = demo_kit.start("demo", "--epochs", 12, "--out", out)
        assert process.stdout is not None
        while "epoch 1 " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        code, _, error = demo_kit.finish(process)
        if code:
            break
        shutil.rmtree(out)  # the machine was so busy that training ended before the signal came
    said, _, resume = error.partition("; go on with: ")
    assert (code, said) == (1, "padless: interrupted")
    words = shlex.split(resume)
    assert error.count("\n") == 1
    assert words == ["padless", "demo", "--resume", "--epochs", "12", "--out", str(out)]

    code, text, error = demo_kit.finish(demo_kit.start(*words[1:]))
    assert (code, error) == (0, "")
    assert "resumed " in text
    code, text, error = demo_kit.finish(demo_kit.start("demo", "--epochs", 12, "--out", other))
    assert (code, error) == (0, "")
    assert_same_bits(demo_kit.weights(out / "checkpoint.pt"), demo_kit.weights(other / "checkpoint.pt"))


# ---- checkpoints that cannot be resumed ---------------------------------------------------------------


def test_a_checkpoint_cut_short_anywhere_is_reported_in_one_line(checkpoint, data):
    whole = checkpoint.read_bytes()
    message = f"{checkpoint} is not a complete checkpoint; start again without --resume"
    for size in (0, 1, 4, 100, len(whole) // 2, len(whole) - 1):
        checkpoint.write_bytes(whole[:size])
        with pytest.raises(PadlessError) as caught:
            resume_run(checkpoint, data)
        assert str(caught.value) == message, size


def test_a_checkpoint_with_a_flipped_bit_is_never_taken_for_another(checkpoint):
    whole, state = checkpoint.read_bytes(), read_checkpoint(checkpoint)
    weight = whole.index(state["model"]["embedding.weight"].numpy().tobytes())
    refused = 0
    for place in (weight + 1_000, *random.Random(0).sample(range(len(whole)), 200)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        checkpoint.write_bytes(damaged)
        try:
            found = read_checkpoint(checkpoint)
        except PadlessError:
            refused += 1
        else:  # the bit is between the parts of the file
            assert_same_bits(found["model"], state["model"])
            assert place != weight + 1_000
    assert refused > 150


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("settings", {"batch_size": "x"}),
        ("settings", {"batch_size": 0}),
        ("settings", {"functions": "a"}),
        ("settings", {"functions": 0}),
        ("settings", {"learning_rate": "fast"}),
        ("settings", {"learning_rate": float("nan")}),
        ("settings", {"seed": "x"}),
        ("settings", {"threads": 0}),
        ("epochs", [{"loss": "x", "accuracy": 0.5, "seconds": 1.0}]),
        ("epochs", [{"loss": 1.0}]),
        ("epochs", 3),
    ],
)
def test_settings_and_results_that_no_run_has_are_reported(checkpoint, data, part, value):
    state = read_checkpoint(checkpoint)
    state[part] = {**state[part], **value} if isinstance(value, dict) else value
    torch.save(state, checkpoint)
    with pytest.raises(PadlessError, match="does not fit this version of the demo; start again without --re"):
        resume_run(checkpoint, data)


def test_a_checkpoint_of_noise_is_reported_in_one_line(checkpoint, data):
    checkpoint.write_bytes(random.Random(0).randbytes(5_000))
    with pytest.raises(PadlessError, match="is not a complete checkpoint"):
        resume_run(checkpoint, data)


@pytest.mark.parametrize("content", [[1, 2], {"model": {}}, {"format": 1}])
def test_a_file_of_another_program_is_no_checkpoint(tmp_path, data, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(
        PadlessError, match=r"other\.pt is not a checkpoint of this demo; start again without --resume$"
    ):
        resume_run(tmp_path / "other.pt", data)


def test_a_checkpoint_executes_nothing(tmp_path, data):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"format": Bomb()}, tmp_path / "bomb.pt")
    with pytest.raises(PadlessError, match="is not a complete checkpoint"):
        resume_run(tmp_path / "bomb.pt", data)
    assert not (tmp_path / "exploded").exists()


def test_a_folder_in_the_checkpoint_s_place_is_reported(tmp_path, data):
    with pytest.raises(PadlessError, match=r"^cannot read .*: Is a directory$"):
        resume_run(tmp_path, data)


@pytest.mark.parametrize(
    ("name", "there"), [("torch", "2.6.0"), ("backend", "abacus"), ("instruction set", "MMX")]
)
def test_other_software_is_named_with_both_its_values(checkpoint, data, name, there):
    state = read_checkpoint(checkpoint)
    here = state["software"][name]
    state["software"][name] = there
    torch.save(state, checkpoint)
    with pytest.raises(PadlessError) as caught:
        resume_run(checkpoint, data)
    assert str(caught.value) == (
        f"{checkpoint} was trained with {name} {there}, but here it is {here}, so the result would differ; "
        "start again without --resume"
    )


def test_another_library_is_reported(checkpoint, data):
    other = replace(data, labels=data.labels[::-1])
    with pytest.raises(
        PadlessError, match=r"was trained on the library of Python 3\..* here differs; start again"
    ):
        resume_run(checkpoint, other)


def test_weights_of_another_shape_are_reported(checkpoint, data):
    state = read_checkpoint(checkpoint)
    state["settings"]["hidden_size"] = 9
    torch.save(state, checkpoint)
    with pytest.raises(
        PadlessError, match="does not fit this version of the demo; start again without --resume$"
    ):
        resume_run(checkpoint, data)


def test_a_resumed_run_takes_the_number_of_threads_from_its_checkpoint(checkpoint, data):
    state = read_checkpoint(checkpoint)
    state["settings"]["threads"] = 2
    torch.save(state, checkpoint)
    try:
        assert resume_run(checkpoint, data).settings.threads == 2
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


# ---- folders and disks --------------------------------------------------------------------------------


def test_a_disk_that_fills_leaves_the_old_checkpoint_whole(checkpoint, data, monkeypatch):
    before = checkpoint.read_bytes()
    run = resume_run(checkpoint, data)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PadlessError, match=r"^cannot write .*checkpoint\.pt: No space left on device$"):
        run.save(checkpoint)
    assert checkpoint.read_bytes() == before
    assert [path.name for path in checkpoint.parent.iterdir()] == ["checkpoint.pt"]


@posix
def test_a_full_disk_ends_the_demo_in_one_line(tmp_path):
    import resource

    def small_files_only() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    code, _, error = demo_kit.finish(demo_kit.start("demo", "--out", tmp_path, before=small_files_only))
    assert (code, error) == (1, f"padless: cannot write {tmp_path / 'checkpoint.pt'}: File too large\n")
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_folder_is_reported_before_anything_is_read(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PadlessError) as caught:
        command.run_demo(out=tmp_path / "file" / "below")
    assert str(caught.value) == f"cannot write to {tmp_path / 'file' / 'below'}: Not a directory"


@pytest.mark.parametrize("epochs", [0, -3])
def test_fewer_than_one_epoch_is_bad_usage(tmp_path, epochs):
    with pytest.raises(UsageError, match=f"--epochs must be at least 1, got {epochs}$"):
        command.run_demo(out=tmp_path, epochs=epochs)


def test_an_earlier_checkpoint_is_kept_beside_the_new_one(checkpoint, capsys):
    before = checkpoint.read_bytes()
    command._keep(checkpoint)
    previous = checkpoint.with_name("checkpoint.previous.pt")
    assert not checkpoint.exists() and previous.read_bytes() == before
    assert capsys.readouterr().out == f"kept        the checkpoint of an earlier run as {previous}\n"
    command._keep(checkpoint)  # nothing there, nothing said
    assert previous.read_bytes() == before and capsys.readouterr().out == ""


def test_a_whole_run_cannot_be_resumed_as_a_quick_one(checkpoint, data):
    state = read_checkpoint(checkpoint)
    state["settings"]["functions"] = None
    torch.save(state, checkpoint)
    with pytest.raises(PadlessError, match="is of a run without --quick; resume it without --quick$"):
        command._begin(checkpoint, data, quick=True, resume=True)


# ---- what the demo leaves -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A whole run of the command: its folder and what it said."""
    out = tmp_path_factory.mktemp("demo")
    code, text, error = demo_kit.finish(demo_kit.start("demo", "--quick", "--out", out))
    assert (code, error) == (0, "")
    return out, text


def test_it_leaves_a_checkpoint_a_picture_and_numbers(finished):
    out, _ = finished
    assert sorted(path.name for path in out.iterdir()) == ["batch.png", "checkpoint.pt", "demo.json"]
    assert (out / "batch.png").read_bytes().startswith(b"\x89PNG")


def test_its_numbers_fit_together(finished, data):
    report = json.loads((finished[0] / "demo.json").read_text())
    assert len(report["epochs"]) == command.QUICK_EPOCHS
    assert report["rows"] < report["cells"]
    assert report["wasted_percent"] == pytest.approx(100 * (1 - report["rows"] / report["cells"]))
    assert report["flops_padded"] * report["rows"] == report["flops_needed"] * report["cells"]
    assert set(report["ratios"]) == set(CONTESTANTS) and report["ratios"]["padless"] == 1
    for name, seconds in report["seconds_a_step"].items():
        assert report["ratios"][name] == pytest.approx(seconds / report["seconds_a_step"]["padless"])


def test_it_ends_with_the_line_that_it_promises(finished):
    out, text = finished
    ratios = json.loads((out / "demo.json").read_text())["ratios"]
    assert text.splitlines()[-1] == (
        f"torch packed takes {ratios['torch packed']:.1f} times as long as padless, "
        f"torch padded {ratios['torch padded']:.1f} times"
    )


def test_without_matplotlib_it_says_so_in_a_line_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = command._picture([3, 2], tmp_path / "batch.png")
    assert said == "none: pictures need Matplotlib: pip install matplotlib"


def test_a_picture_that_cannot_be_written_is_said_and_does_not_end_it(tmp_path):
    said = command._picture([3, 2], tmp_path / "not there" / "batch.png")
    assert said.startswith("none: ") and "No such file or directory" in said


# ---- training and comparing ---------------------------------------------------------------------------


def test_three_contestants_compute_the_same_loss_and_the_same_gradients(data):
    run = new_run(Settings(**demo_kit.SHORTENED), data)
    tensors, labels = [torch.tensor(sequence) for sequence in data.sequences], torch.tensor(data.labels)
    batch = epoch_batches(run.settings, data, 0)[0]
    models = [
        packed_twin(run.reader, by_torch=False), packed_twin(run.reader, by_torch=True), padded_twin(run.reader)
    ]  # fmt: skip
    losses = [loss_of(model, batch, tensors, labels) for model in models]
    for loss in losses:
        loss.backward()
    steps = max(len(tensors[i]) for i in batch)
    bound = 64 * torch.finfo().eps * steps**0.5
    for loss, model in zip(losses[1:], models[1:], strict=True):
        torch.testing.assert_close(loss, losses[0], rtol=bound, atol=0)
        ours, theirs = ({k: p.grad for k, p in m.named_parameters()} for m in (models[0], model))
        for name, gradient in ours.items():
            other = name
            if name not in theirs:
                side = "reverse" if name.endswith("_reverse") else "ahead"
                other = name.replace("lstm", side).removesuffix("_reverse")
            scale = float(gradient.abs().max())
            torch.testing.assert_close(theirs[other], gradient, rtol=0, atol=bound * scale, msg=name)


def test_the_torch_contestant_uses_nothing_of_padless(data):
    twin = packed_twin(new_run(Settings(**demo_kit.SHORTENED), data).reader, by_torch=True)
    assert type(twin.lstm) is torch.nn.LSTM
    assert twin.pack.__module__ == "torch.nn.utils.rnn"


def test_a_comparison_leaves_the_reader_as_it_was(data):
    run = new_run(Settings(**demo_kit.SHORTENED), data)
    before = {name: tensor.clone() for name, tensor in run.reader.state_dict().items()}
    result = compare(run.reader, epoch_batches(run.settings, data, 0)[:2], data, learning_rate=1e-2)
    assert_same_bits(run.reader.state_dict(), before)
    assert result.steps == 2 and result.ratio("padless") == 1
    assert result.largest_loss_difference < 1e-5


def test_every_training_function_comes_once_an_epoch_in_another_order_each(data):
    first, second = (epoch_batches(Settings(batch_size=16), data, number) for number in (0, 1))
    for batches in (first, second):
        assert sorted(i for batch in batches for i in batch) == sorted(data.training)
    assert first != second
    assert first == epoch_batches(Settings(batch_size=16), data, 0)


def test_training_lowers_the_loss(data, tmp_path):
    run = new_run(replace(Settings(**demo_kit.SHORTENED), learning_rate=2e-2), data)
    training.train(run, data, epochs=5, path=tmp_path / "checkpoint.pt")
    assert run.epochs[-1].loss < run.epochs[0].loss - 0.1


# ---- data ---------------------------------------------------------------------------------------------


def test_functions_are_read_whole_and_once(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    (package / "a.py").write_text(
        "def outer(a, b):  # said\n    def inner(c):\n        return c\n    return inner(a)\n"
        "class K:\n    async def method(self):\n        return await self\n"
        "def s(): pass\n"
    )
    (tmp_path / "broken.py").write_text("def (:\n")
    seen: list[int] = []
    files = [package / "a.py", tmp_path / "broken.py"]
    functions = read_functions(tmp_path, files, progress=seen.append)
    assert [(function.package, function.words[:3]) for function in functions] == [
        ("package", ("def", "outer", "(")),
        ("package", ("async", "def", "method")),
        ("package", ("def", "s", "(")),
    ]
    assert "inner" in functions[0].words and "# said" not in functions[0].words
    assert seen == [1, 2]  # the broken file counts too, or the bar would never fill


def test_two_copies_of_a_function_are_never_parted(data):
    held_out = {data.sequences[i] for i in data.held_out}
    for package in ("a", "b"):
        assert Function(package, ("x",)).is_held_out == Function("c", ("x",)).is_held_out
    assert held_out


def test_words_that_training_never_saw_become_their_kind():
    words = ("rare", "0x1f", "'text'", "def")
    common = [Function("a", ("def",) * 3) for _ in range(40)]
    seen = [f for f in (Function("a", (*words, str(k))) for k in range(40)) if f.is_held_out]
    encoded = to_data([*common, *seen, Function("a", ("def", "also"))], class_minimum=1)
    by_words = dict(zip([*common, *seen], encoded.sequences, strict=False))
    assert by_words[seen[0]][:4] == (0, 1, 2, 3)


def test_packages_with_few_functions_are_left_out():
    functions = [Function("big", ("a", str(k))) for k in range(30)] + [Function("small", ("b",))]
    assert to_data(functions, class_minimum=2).classes == ("big",)


def test_the_fingerprint_tells_data_apart(data):
    assert data.fingerprint == replace(data).fingerprint
    for change in ({"labels": data.labels[::-1]}, {"training": data.training[1:]}, {"vocabulary_size": 3}):
        assert replace(data, **change).fingerprint != data.fingerprint


def test_the_majority_is_that_of_training_and_its_accuracy_that_of_the_held_out():
    data = Data(((0,),) * 6, (0, 0, 1, 0, 1, 1), (0, 1, 2), (3, 4, 5), ("a", "b"), 1)
    assert data.majority_accuracy == 1 / 3
