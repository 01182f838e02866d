"""Real processes joined by gloo, for tests: started once, given one function after another, never left behind."""

from __future__ import annotations

import multiprocessing
import pickle
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import distributed

__all__ = ["Ranks"]

SECONDS_TO_START = 120.0  # importing torch on a busy machine
SECONDS_TO_ANSWER = 60.0
SECONDS_TO_MEET = 30  # what a rank waits for another in a collective


class Ranks:
    """`world_size` processes with a gloo group of their own.

    They meet in a file of their own, so no port can be taken; they are spawned, so no thread of the test's own
    process is forked.
    """

    def __init__(self, world_size: int, folder: Path) -> None:
        self._world_size, self._folder = world_size, folder
        self._processes: list[Any] = []
        self._pipes: list[Connection] = []

    def run(self, function: Callable[..., Any], *args: Any, lost: int | None = None) -> list[Any]:
        """What `function(*args)`, a function of a module, returns on each rank, by rank.

        A rank that raises fails the run, with its traceback; so does one that is not heard of in time, and one that
        ends, unless it is the one that is to be `lost` and gives None. All are then stopped, and the next run starts
        others.
        """
        if not self._processes:
            self._start()
        job = pickle.dumps((function, args))
        for pipe in self._pipes:
            pipe.send_bytes(job)
        answers = self._answers(SECONDS_TO_ANSWER, lost)
        if lost is not None:
            self.close()
        return answers

    def close(self) -> None:
        """Stop every process, whatever it does."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        for pipe in self._pipes:
            pipe.close()
        self._processes, self._pipes = [], []

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        store = self._folder / f"store-{time.monotonic_ns()}"
        for rank in range(self._world_size):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(rank, self._world_size, str(store), theirs), daemon=True
            )
            process.start()
            theirs.close()  # so that the pipe ends when the process does
            self._processes.append(process)
            self._pipes.append(ours)
        self._answers(SECONDS_TO_START)

    def _answers(self, seconds: float, lost: int | None = None) -> list[Any]:
        answers: dict[int, Any] = {}
        end = time.monotonic() + seconds
        while len(answers) < self._world_size:
            waiting = [rank for rank in range(self._world_size) if rank not in answers]
            ready = wait([self._pipes[rank] for rank in waiting], max(0.0, end - time.monotonic()))
            if not ready:
                self.close()
                raise TimeoutError(f"nothing from ranks {waiting} in {seconds:.0f} s")
            for rank in [rank for rank in waiting if self._pipes[rank] in ready]:
                try:
                    is_well, answers[rank] = pickle.loads(self._pipes[rank].recv_bytes())
                except EOFError:
                    is_well, answers[rank] = rank == lost, None
                if not is_well:
                    self.close()
                    raise RuntimeError(f"rank {rank} of {self._world_size}: {answers[rank] or 'it ended'}")
        return [answers[rank] for rank in range(self._world_size)]


def _serve(rank: int, world_size: int, store: str, pipe: Connection) -> None:
    warnings.simplefilter("error")
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=world_size,
        timeout=timedelta(seconds=SECONDS_TO_MEET),
    )
    pipe.send_bytes(pickle.dumps((True, None)))
    with suppress(EOFError, BrokenPipeError):  # the test's end of the pipe is closed: the end
        while True:
            pipe.send_bytes(pickle.dumps(_answer(pipe.recv_bytes())))
    distributed.destroy_process_group()


def _answer(job: bytes) -> tuple[bool, Any]:
    """Whether it went well, and the result or the traceback."""
    torch.manual_seed(0)
    try:
        function, args = pickle.loads(job)
        return True, function(*args)
    except Exception:
        return False, traceback.format_exc()
