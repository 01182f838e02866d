"""examples/train_ddp.py under torchrun: processes are killed, and the result does not show it."""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_ddp.py"
SMALL = ["--sequences", "640", "--batch-size", "16", "--epochs", "2", "--save-every", "4"]
SECONDS = 200  # of a run with a restart on a busy machine, most of them to import torch
LAST_LINE = re.compile(r"held-out loss (\d\.\d+), weights [0-9a-f]{16}")

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed")
needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="the workers are found in /proc")


class Training:
    """The example under torchrun, read line by line; whatever happens, none of its processes outlives it."""

    def __init__(self, folder: Path, ranks: int, *options: str, restarts: int = 3) -> None:
        self.checkpoint, self._errors = folder / "checkpoint.pt", folder / "errors.txt"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(ranks), "--max-restarts", str(restarts)]
        command += [str(EXAMPLE), "--checkpoint", str(self.checkpoint)]
        with self._errors.open("w") as errors:  # a file, for a pipe that nobody reads fills up
            self._process = subprocess.Popen(
                [*command, *SMALL, *options],
                env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._alarm = threading.Timer(SECONDS, self._kill)
        self._alarm.start()
        self.lines: list[str] = []

    def __iter__(self) -> Iterator[str]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.lines.append(line.rstrip())
            yield self.lines[-1]

    def workers(self) -> dict[int, int]:
        """Process number of each rank."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        found = {}
        for child in children:
            try:
                variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended
            found |= {int(v[5:]): int(child) for v in variables if v.startswith(b"RANK=")}
        return found

    def _kill(self) -> None:
        if self._process.poll() is None:
            for process in [*self.workers().values(), self._process.pid]:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)

    def stop(self) -> None:
        self._alarm.cancel()
        self._kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def result(self) -> tuple[list[str], dict[str, Any]]:
        """What it printed, and the checkpoint."""
        for _ in self:
            pass
        assert self._process.wait() == 0, self._errors.read_text()
        return self.lines, torch.load(self.checkpoint, weights_only=True)


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Training]]:
    started = []

    def start(ranks: int, *options: str, restarts: int = 3) -> Training:
        started.append(Training(tmp_path_factory.mktemp("run"), ranks, *options, restarts=restarts))
        return started[-1]

    yield start
    for training in started:
        training.stop()


@pytest.fixture(scope="module")
def undisturbed(train: Callable[..., Training]) -> Callable[[int], tuple[list[str], dict[str, Any]]]:
    """What a run on so many ranks comes to that nobody disturbs."""
    return functools.cache(lambda ranks: train(ranks, restarts=0).result())


def run_and_kill(training: Training, killed: int) -> tuple[list[str], dict[str, Any]]:
    """What a run comes to of which one rank is killed in the middle of an epoch."""
    for line in training:
        if re.match(r"epoch 1, step 4 of \d+: ", line):
            os.kill(training.workers()[killed], signal.SIGKILL)
            break
    result = training.result()
    resumed = [line for line in training.lines if line.startswith(f"resumed {training.checkpoint}: ")]
    assert re.search(r": [01] epochs and [1-9]\d* steps done$", resumed[0]), training.lines
    return result


def assert_same_bits(got: Any, expected: Any) -> None:
    for ours, theirs in zip(tree_leaves(got), tree_leaves(expected), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(("ranks", "killed"), [(2, 1), (4, 0)])
def test_a_run_of_which_a_process_is_killed_ends_with_the_bits_of_one_that_nobody_disturbed(
    train: Callable[..., Training], undisturbed: Any, ranks: int, killed: int
) -> None:
    got, checkpoint = run_and_kill(train(ranks), killed)
    expected, expected_checkpoint = undisturbed(ranks)
    assert LAST_LINE.fullmatch(got[-1]) and got[-1] == expected[-1]
    steps = 640 // (16 * ranks)
    assert len(expected) == 2 * (steps // 4 + 1) + 1, expected  # one rank speaks
    assert_same_bits(checkpoint, expected_checkpoint)


@needs_proc
@pytest.mark.slow
def test_under_fsdp_it_survives_too_and_learns_what_it_learns_under_ddp(
    train: Callable[..., Training], undisturbed: Any
) -> None:
    got, checkpoint = run_and_kill(train(2, "--fsdp"), 0)
    expected, expected_checkpoint = undisturbed(2)
    losses = [float(LAST_LINE.fullmatch(line)[1]) for line in (got[-1], expected[-1])]  # pyright: ignore[reportOptionalSubscript]
    assert abs(losses[0] - losses[1]) < 1e-4  # the same sums in another order, over 40 steps of Adam
    assert checkpoint["model"].keys() == expected_checkpoint["model"].keys()
    assert checkpoint["sampler"] == expected_checkpoint["sampler"]


# --- without torchrun -----------------------------------------------------------------------------


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[Any]:
    """The example as a module, in a process group of this process alone."""
    distributed = torch.distributed
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    spec = importlib.util.spec_from_file_location("train_ddp", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module
    distributed.destroy_process_group()


def test_a_crash_while_a_checkpoint_is_written_leaves_the_one_before(
    one_rank: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.pt"
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.Adam(model.parameters())
    one_rank.save(path, model, optimizer, {"epoch": 0})
    before = torch.load(path, weights_only=True)

    def crash(*arguments: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with torch.no_grad():
        model.weight.zero_()
    with pytest.raises(KeyboardInterrupt):
        one_rank.save(path, model, optimizer, {"epoch": 1})
    assert_same_bits(torch.load(path, weights_only=True), before)


def test_walks_are_the_same_whoever_reads_them_and_mostly_go_on_as_they_began(one_rank: Any) -> None:
    walks, again = one_rank.Walks(50, seed=3), one_rank.Walks(50, seed=3)
    for i in range(50):
        letters, following = walks[i]
        assert len(letters) == len(following) == walks.lengths[i] == again.lengths[i]
        assert torch.equal(letters[1:], following[:-1])
        assert torch.equal(letters, again[i][0])
    letters, following = walks[int(walks.lengths.argmax())]
    steps = (following - letters) % one_rank.LETTERS
    assert 0.8 < float((steps == steps.mode()[0]).float().mean()) < 1


def test_help_tells_how_to_start_it(
    one_rank: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_ddp.py", "--help"])
    with pytest.raises(SystemExit) as end:
        one_rank.main()
    assert end.value.code == 0
    assert "torchrun --standalone --nproc-per-node 2 --max-restarts 3" in capsys.readouterr().out


def test_without_torchrun_it_says_how(
    one_rank: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_ddp.py"])
    with pytest.raises(SystemExit) as end:
        one_rank.main()
    assert end.value.code == 2
    assert "start it by torchrun: torchrun --standalone --nproc-per-node 2" in capsys.readouterr().err


def test_on_several_machines_it_asks_for_what_a_restart_there_needs(
    one_rank: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {
        "RANK": "0",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(one_rank, "rendezvous", lambda url: iter([(None, 0, 2)]))
    with pytest.raises(SystemExit, match="TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"):
        one_rank.meet("gloo")
