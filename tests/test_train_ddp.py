"""examples/train_ddp.py under torchrun: processes are killed, and the result does not show it."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "train_ddp.py"
SMALL = ["--sequences", "640", "--batch-size", "16", "--epochs", "2", "--hidden-size", "16", "--save-every", "4"]
SECONDS = 150  # of a run with a restart on a busy machine; two or three on a free one are of training

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch has no torch.distributed")


class Training:
    """The example under torchrun, read line by line; whatever happens, none of its processes outlives it."""

    def __init__(self, folder: Path, ranks: int, *options: str) -> None:
        self.checkpoint = folder / "checkpoint.pt"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "3"]
        command += ["--nproc-per-node", str(ranks), str(EXAMPLE), "--checkpoint", str(self.checkpoint)]
        self._process = subprocess.Popen(
            [*command, *SMALL, *options],
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._alarm = threading.Timer(SECONDS, self.stop)
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
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            found |= {int(v[5:]): int(child) for v in variables if v.startswith(b"RANK=")}
        return found

    def stop(self) -> None:
        self._alarm.cancel()
        for process in [*self.workers().values(), self._process.pid] if self._process.poll() is None else []:
            os.kill(process, signal.SIGKILL)

    def result(self) -> tuple[str, dict[str, Any]]:
        """The last line, and the checkpoint."""
        for _ in self:
            pass
        _, errors = self._process.communicate()
        assert self._process.returncode == 0, errors
        return self.lines[-1], torch.load(self.checkpoint, weights_only=True)


@pytest.fixture
def train(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Training]]:
    started = []

    def start(ranks: int, *options: str) -> Training:
        started.append(Training(tmp_path_factory.mktemp("run"), ranks, *options))
        return started[-1]

    yield start
    for training in started:
        training.stop()


def leaves(tree: Any) -> list[Any]:
    return torch.utils._pytree.tree_leaves(tree)


def assert_same_bits(got: Any, expected: Any) -> None:
    for ours, theirs in zip(leaves(got), leaves(expected), strict=True):
        assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the workers in /proc")
@pytest.mark.parametrize(("ranks", "killed", "options"), [(2, 1, []), (4, 0, []), (2, 1, ["--fsdp"])])
def test_a_run_of_which_a_process_is_killed_ends_with_the_bits_of_one_that_nobody_disturbed(
    train: Callable[..., Training], ranks: int, killed: int, options: list[str]
) -> None:
    expected, checkpoint = train(ranks, *options).result()
    disturbed = train(ranks, *options)
    for line in disturbed:
        if re.match(r"epoch 2, step \d+: ", line):
            os.kill(disturbed.workers()[killed], signal.SIGKILL)
            break
    got, restarted = disturbed.result()
    assert re.fullmatch(r"held-out loss \d\.\d+, weights [0-9a-f]{16}", got)
    assert any(re.match(r"going on from .*: epoch 2, [1-9]\d* steps done$", line) for line in disturbed.lines)
    assert got == expected
    assert_same_bits(restarted, checkpoint)
