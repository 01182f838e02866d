"""Nothing is left over: memory after many calls, state after an exception; layers shared between processes."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import padless

LENGTHS = [5, 3, 1]


def kinds():
    sequences = [torch.randn(length, 4) for length in LENGTHS]
    grid = torch.randn(5, 3, 4)
    return {
        "padded": ((grid,), {}),
        "lengths": ((grid,), {"lengths": LENGTHS}),
        "PackedSequence": ((torch.nn.utils.rnn.pack_sequence(sequences),), {}),
        "Packed": ((padless.pack(sequences),), {}),
        "nested": ((torch.nested.nested_tensor(sequences, layout=torch.jagged),), {}),
    }


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("kind", ["padded", "lengths", "PackedSequence", "Packed", "nested"])
def test_many_calls_leave_no_memory(kind):
    layer = padless.nn.LSTM(4, 8)
    arguments, named = kinds()[kind]

    def call():
        _, (h_n, _) = layer(*arguments, **named)
        h_n.sum().backward()
        with torch.no_grad():
            layer(*arguments, **named)

    for _ in range(500):
        call()
    before = resident_bytes()
    for _ in range(2_000):
        call()
    assert resident_bytes() - before < 1_000_000  # 500 bytes a call; docs/everywhere.md has more calls


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_an_exception_in_forward_or_backward_leaves_nothing(cell):
    layer = getattr(padless.nn, cell)(4, 8, num_layers=2)
    packed = kinds()["PackedSequence"][0][0]

    def gradients():
        layer.zero_grad()
        layer(packed)[0].data.square().sum().backward()
        return [weight.grad.clone() for weight in layer.parameters()]

    expected = gradients()

    def refuse(grad):
        raise KeyboardInterrupt

    with pytest.raises(RuntimeError):
        layer(packed, torch.zeros(1, 3, 8))
    output = layer(packed)[0].data
    output.register_hook(refuse)
    with pytest.raises(KeyboardInterrupt):
        output.sum().backward()
    handle = layer.weight_hh_l1.register_hook(refuse)
    with pytest.raises(KeyboardInterrupt):
        gradients()
    handle.remove()
    for got, want in zip(gradients(), expected, strict=True):
        assert torch.equal(got, want)


PROGRAM = """
import sys
import torch
import torch.multiprocessing as processes
import padless

def work(layer, x, results):
    with torch.no_grad():
        results.copy_(layer(x)[0])
        layer.weight_hh_l0.zero_()  # in memory that the parent sees

if __name__ == "__main__":
    torch.manual_seed(0)
    layer = padless.nn.GRU(4, 8).share_memory()
    x = torch.randn(5, 3, 4)
    with torch.no_grad():
        expected = layer(x)[0]
    results = torch.zeros_like(expected).share_memory_()
    child = processes.get_context(sys.argv[1]).Process(target=work, args=(layer, x, results))
    child.start()
    child.join(100)
    assert child.exitcode == 0, child.exitcode
    assert torch.equal(results, expected)
    with torch.no_grad():
        after = layer(x)[0]
    assert not torch.equal(after, expected)  # no weights were kept from before
    layer.weight_hh_l0.grad = None
    layer(x)[0].sum().backward()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_shared_layer_is_used_and_written_by_another_process(method, tmp_path):
    import multiprocessing

    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"no {method} here")
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    subprocess.run([sys.executable, str(program), method], check=True, timeout=150)
