"""The kernels beside other threads and after fork."""

from __future__ import annotations

import os
import select
import threading

import pytest
import torch

import padless
from padless.backends import _kernels

if _kernels.missing():
    pytest.skip(str(_kernels.missing()), allow_module_level=True)

from .harness import Case, run


def test_eight_python_threads_of_two_kernel_threads_each_agree():
    case = Case("LSTM", [20, 3, 9, 9, 14, 1, 2], 24, 48)
    want, results = run(case)["y"], [None] * 8

    def work(i):
        for _ in range(5):
            results[i] = run(case, threads=2)["y"]

    workers = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert all(not worker.is_alive() for worker in workers)
    for got in results:
        assert all(torch.equal(a, b) for a, b in zip(want, got, strict=True))


@pytest.mark.parametrize(
    ("cell", "hidden", "projection"),
    [("LSTM", 144, 0), ("LSTM", 384, 330), ("GRU", 144, 0), ("RNN_TANH", 512, 0)],
)
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
def test_more_threads_than_cores_change_no_bit_of_a_long_sequence(cell, hidden, projection, reverse):
    # Barriers come late then, and one thread takes steps alone: forward, backward, and in and out of it.
    case = Case(
        cell,
        [300, 280, 3, 30, *range(1, 60, 2)],
        24,
        hidden,
        projection=projection,
        reverse=reverse,
    )
    alone = run(case)
    team = run(case, threads=5)
    for name, value in alone.items():
        pairs = zip(value, team[name], strict=True) if isinstance(value, list) else [(value, team[name])]
        assert all(a is None or torch.equal(a, b) for a, b in pairs), name


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_runs_its_layers_on_one_thread_whatever_torch_says():
    case = Case("GRU", [20, 3, 9], 24, 48)
    run(case, threads=2)
    assert _kernels.threads_for("GRU", 10**6, 24, 48) == torch.get_num_threads()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.manual_seed(0)
            layer, x = padless.nn.LSTM(64, 64), torch.randn(20, 50, 64)
            with torch.no_grad():  # torch itself refuses backward here, if its parent ran one
                layer(padless.pack(x, [50] * 20))
            code = 0 if _kernels.threads_for("GRU", 10**6, 24, 48) == 1 else 2
        finally:
            os.write(writing, bytes([code]))
            os._exit(code)
    assert select.select([reading], [], [], 60)[0], "the child hangs"
    assert os.read(reading, 1) == b"\0"
    assert os.waitpid(child, 0)[1] == 0


def test_little_work_takes_one_thread():
    assert _kernels.threads_for("LSTM", 10, 64, 64) == 1


@pytest.mark.parametrize("cell", ["LSTM", "RNN"])
def test_every_thread_flushes_subnormal_numbers_if_the_caller_does(cell: str) -> None:
    torch.manual_seed(0)
    layer = getattr(padless.nn, cell)(64, 64)
    with torch.no_grad():
        for p in layer.parameters():
            p.mul_(1e-37)
    x, threads = padless.pack([torch.randn(n, 64) for n in (30, 20, 20, 9) * 8]), torch.get_num_threads()
    results = []
    try:
        with torch.no_grad():
            for count in (2, 1, 2):  # threads that were started before have their own mode
                torch.set_num_threads(count)
                results.append(layer(x)[0].data)
                assert torch.set_flush_denormal(True)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(threads)
    assert torch.equal(results[1], results[2])
    assert not torch.equal(results[0], results[1])
