"""The kernels beside other threads and after fork."""

from __future__ import annotations

import os
import threading

import pytest
import torch

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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_runs_on_one_thread_after_its_parent_ran_on_two():
    case = Case("GRU", [20, 3, 9], 24, 48)
    run(case, threads=2)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(1)
            run(case, threads=1)
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
