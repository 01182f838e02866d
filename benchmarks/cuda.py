"""padless on a CUDA device: checks each part against the CPU in float64, then times packed, padded and padless.

    python benchmarks/cuda.py                  # on a CUDA device, under five minutes
    python benchmarks/cuda.py --device cpu     # the same checks and times without one

It prints one line a check and one line a shape, and exits with 1 if a check fails.
"""

from __future__ import annotations

import sys

# torch imports a package `cuda` (NVIDIA's bindings), which this file must not hide from it.
if __name__ != "__main__":
    raise ImportError("benchmarks/cuda.py is a script, not NVIDIA's package")
sys.path.pop(0)

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence
from torch.utils._pytree import tree_leaves

import padless
from padless import Packed, losses, ops
from padless.bench.cases import SHAPES

CHECKED_LENGTHS = [7, 3, 12, 1, 9]
RUNS = 9


def tensors(result: Any) -> list[Tensor]:
    """Every tensor of a result, the rows of packed batches included."""
    leaves = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
    return [leaf.values() if leaf.is_nested else leaf for leaf in leaves]


def layer_on(kind: str, cell: str) -> Callable[[list[Tensor], torch.device, torch.dtype], Any]:
    def run(sequences: list[Tensor], device: torch.device, dtype: torch.dtype) -> Any:
        torch.manual_seed(0)
        layer = getattr(padless.nn, cell)(6, 8, 2, bidirectional=True).to(device, dtype)
        lengths = [len(s) for s in sequences]
        if kind == "PackedSequence":
            return layer(pack_sequence(sequences, enforce_sorted=False))[1]
        if kind == "Packed":
            return layer(padless.pack(sequences))[1]
        if kind == "nested":
            return layer(padless.pack(sequences).to_nested())[1]
        grid = padless.rnn.pad_sequence(sequences)
        return layer(grid, lengths=lengths) if kind == "lengths" else layer(grid)

    return run


def on_packed(function: Callable[[Packed], Any]) -> Callable[[list[Tensor], torch.device, torch.dtype], Any]:
    return lambda sequences, device, dtype: function(padless.pack(sequences))


def scanned(sequences: list[Tensor], device: torch.device, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    cell = torch.nn.GRUCell(6, 8).to(device, dtype)

    def step(rows: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        state = cell(rows, state)
        return state, state

    packed = padless.pack(sequences)
    return padless.scan(step, packed, torch.zeros(len(packed), 8, device=device, dtype=dtype))


CHECKS: dict[str, Callable[[list[Tensor], torch.device, torch.dtype], Any]] = {
    **{
        f"{cell} on {kind}": layer_on(kind, cell)
        for cell in ("LSTM", "GRU", "RNN")
        for kind in ("PackedSequence", "Packed", "nested", "lengths", "padded")
    },
    "pad": on_packed(lambda p: p.pad()),
    "to_packed_sequence": on_packed(lambda p: p.to_packed_sequence().data),
    "indexing": on_packed(lambda p: p[[2, 0]]),
    "sum": on_packed(ops.sum),
    "mean": on_packed(ops.mean),
    "max": on_packed(ops.max),
    "logsumexp": on_packed(ops.logsumexp),
    "softmax": on_packed(ops.softmax),
    "log_softmax": on_packed(ops.log_softmax),
    "cumsum": on_packed(ops.cumsum),
    "reverse": on_packed(ops.reverse),
    "shift": on_packed(lambda p: ops.shift(p, 1)),
    "last": on_packed(ops.last),
    "cat": on_packed(lambda p: ops.cat([p, p])),
    "cross_entropy": on_packed(lambda p: losses.cross_entropy(p, p.map(lambda rows: rows.argmax(1)))),
    "mse_loss": on_packed(lambda p: losses.mse_loss(p, p.map(torch.zeros_like), reduction="sequence_mean")),
    "scan": scanned,
}


def check(device: torch.device) -> bool:
    """Values and gradients of every check, float32 on the device against float64 on the CPU."""
    generator = torch.Generator().manual_seed(1)
    rows = [torch.randn(length, 6, dtype=torch.float64, generator=generator) for length in CHECKED_LENGTHS]
    good = True
    for name, run in CHECKS.items():
        found = []
        for where, dtype in ((torch.device("cpu"), torch.float64), (device, torch.float32)):
            sequences = [s.to(where, dtype).requires_grad_() for s in rows]
            values = tensors(run(sequences, where, dtype))
            loss = sum((v * v).sum() for v in values if v.requires_grad)
            gradients = torch.autograd.grad(loss, sequences) if isinstance(loss, Tensor) else ()
            found.append([t.detach().cpu().double() for t in (*values, *gradients)])
        error = max(float((a - b).abs().max()) for a, b in zip(*found, strict=True))
        good &= error < 1e-3
        print(f"{'ok  ' if error < 1e-3 else 'FAIL'} {name}: largest difference {error:.1e}", flush=True)
    return good


def milliseconds(sides: list[Callable[[], Any]], device: torch.device) -> list[float]:
    """The least time of a call of each side, in turns, the device's work included."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    least = [float("inf")] * len(sides)
    for _ in range(RUNS):
        for i, side in enumerate(sides):
            side()
            wait()
            start, calls = time.perf_counter(), 0
            while calls < 3 or time.perf_counter() - start < 0.05:
                side()
                calls += 1
            wait()
            least[i] = min(least[i], 1e3 * (time.perf_counter() - start) / calls)
    return least


def measure(device: torch.device) -> None:
    """Training of an LSTM on lengths between 1 and T: torch on a PackedSequence, torch padded, padless on a Packed."""
    print(f"\n{'B,T,H':>12}  packed ms  padded ms  padless ms  padless / packed  padless / padded")
    for batch, steps, hidden in SHAPES:
        generator = torch.Generator().manual_seed(2)
        lengths = [steps, *torch.randint(1, steps + 1, (batch - 1,), generator=generator).tolist()]
        sequences = [torch.randn(length, hidden, generator=generator).to(device) for length in lengths]
        theirs = torch.nn.LSTM(hidden, hidden).to(device)
        ours = padless.nn.LSTM(hidden, hidden).to(device)
        ours.load_state_dict(theirs.state_dict())
        weights = list(theirs.parameters()), list(ours.parameters())
        packed, grid = pack_sequence(sequences, enforce_sorted=False), padless.rnn.pad_sequence(sequences)
        batch_of = padless.pack(sequences)
        torch.testing.assert_close(ours(batch_of)[1][0], theirs(packed)[1][0], rtol=1e-3, atol=1e-3)
        sides = [
            lambda: torch.autograd.grad(theirs(packed)[0].data.sum(), weights[0]),  # noqa: B023
            lambda: torch.autograd.grad(theirs(grid)[0].sum(), weights[0]),  # noqa: B023
            lambda: torch.autograd.grad(ours(batch_of)[0].data.sum(), weights[1]),  # noqa: B023
        ]
        a, b, c = milliseconds(sides, device)
        print(
            f"{f'{batch},{steps},{hidden}':>12}  {a:9.2f}  {b:9.2f}  {c:10.2f}  {c / a:16.2f}  {c / b:16.2f}",
            flush=True,
        )


def count_synchronisations() -> None:
    """Waits for the device in a training step on a Packed: few, and no more for longer batches."""
    import warnings

    layer = padless.nn.LSTM(16, 16).cuda()
    for steps in (10, 100):
        batch = padless.pack([torch.randn(length, 16).cuda() for length in (steps, steps // 2, 1)])
        torch.cuda.set_sync_debug_mode("warn")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            ops.mean(layer(batch)[0]).sum().backward()
        torch.cuda.set_sync_debug_mode("default")
        print(f"synchronisations in a step over T = {steps}: {len(caught)}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--checks-only", action="store_true", help="no times")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        print("no CUDA device here; --device cpu runs the same checks", file=sys.stderr)
        return 1
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{name}, torch {torch.__version__}, padless {padless.__version__}")
    good = check(device)
    if not options.checks_only:
        if device.type == "cuda":
            count_synchronisations()
        measure(device)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
