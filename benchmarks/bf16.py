"""An LSTM in bfloat16 products beside float32 and torch padded: `python benchmarks/bf16.py [MODE]...`.

infer: bfloat16 tensors in inference.
autocast: a float32 layer trained under `torch.autocast("cpu")`.
train: a bfloat16 layer trained.
high: a float32 layer under `torch.set_float32_matmul_precision("high")`, in inference and in training.

CPU time on one thread, the least of several runs in turns, each side warmed for 15 ms. Lengths are the "short" ones of
`padless bench`; torch's padded layer computes the padding. Outputs are checked first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

import padless
from padless.bench.cases import SHAPES, Shape
from padless.bench.lengths import draw_lengths

MODES = ("infer", "autocast", "train", "high")
ROUNDS = 9
Result = Callable[[], "Tensor | padless.Packed"]


def milliseconds(call: Callable[[], object]) -> float:
    """The least CPU time of three calls, after 15 ms of calls that are not timed."""
    start = time.perf_counter()
    while time.perf_counter() - start < 0.015:
        call()
    least = float("inf")
    for _ in range(3):
        begin = time.thread_time()
        call()
        least = min(least, (time.thread_time() - begin) * 1e3)
    return least


def with_precision(name: str, call: Result) -> Result:
    """The call under torch's precision switch."""

    def switched() -> Tensor | padless.Packed:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(name)
        try:
            return call()
        finally:
            torch.set_float32_matmul_precision(before)

    return switched


class Batch:
    """Layers with the same weights on the same sequences: padless and torch padded, float32 and bfloat16."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        batch, steps, width = shape
        lengths = draw_lengths("short", batch, steps)
        rows = torch.randn(int(lengths.sum()), width)
        self.packed = padless.Packed(rows, lengths)
        self.padded = self.packed.pad()
        self.fill = len(rows) / (batch * steps)
        self.wide = padless.nn.LSTM(width, width, batch_first=True)
        self.narrow = padless.nn.LSTM(width, width, batch_first=True, dtype=torch.bfloat16)
        self.torch_wide = torch.nn.LSTM(width, width, batch_first=True)
        self.torch_narrow = torch.nn.LSTM(width, width, batch_first=True, dtype=torch.bfloat16)
        for layer in (self.narrow, self.torch_wide, self.torch_narrow):
            layer.load_state_dict(self.wide.state_dict())

    def infer(self, layer: torch.nn.Module, x: Tensor | padless.Packed) -> Result:
        def call() -> Tensor | padless.Packed:
            with torch.no_grad():
                return layer(x)[0]

        return call

    def train(self, layer: torch.nn.Module, x: Tensor | padless.Packed, autocast: bool = False) -> Result:
        is_packed, lengths = isinstance(x, padless.Packed), self.packed.lengths
        data = (x.data if is_packed else x).detach().requires_grad_()
        # torch's layer gets no gradient at padding, and does not pay for a mask.
        grad = torch.randn_like(self.packed.data)
        grad = grad if is_packed else padless.Packed(grad, self.packed.lengths).pad()

        def call() -> Tensor | padless.Packed:
            layer.zero_grad()
            data.grad = None
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                output = layer(padless.Packed(data, lengths) if is_packed else data)[0]
            result = output.data if is_packed else output
            result.backward(grad.to(result.dtype))
            return output

        return call


def compare(shape: Shape, mode: str) -> None:
    case = Batch(shape)
    if mode == "high":
        for kind, start in (("infer", case.infer), ("train", case.train)):
            highest = start(case.wide, case.packed)
            contestants = {"padless high": with_precision("high", highest), "padless highest": highest}
            report(f"high, {kind} {label(case)}", contestants, tolerance=2e-5)
        return
    low, name = case.packed.to(torch.bfloat16), "autocast" if mode == "autocast" else "bf16"
    start = case.infer if mode == "infer" else case.train
    own, theirs = start(case.narrow, low), start(case.torch_narrow, low.pad())
    if mode == "autocast":
        own = case.train(case.wide, case.packed, autocast=True)
        theirs = case.train(case.torch_wide, case.padded, autocast=True)
    contestants = {f"padless {name}": own, "padless float32": start(case.wide, case.packed)}
    report(f"{mode} {label(case)}", {**contestants, f"torch padded {name}": theirs})


def label(case: Batch) -> str:
    batch, steps, width = case.shape
    return f"{batch:4} {steps:3} {width:3}  fill {case.fill:.2f}"


def report(title: str, contestants: dict[str, Result], tolerance: float = 0.05) -> None:
    """Print the time of the first contestant, and how many times as long the others take."""
    outputs = [call() for call in contestants.values()]
    lengths = next(o for o in outputs if isinstance(o, padless.Packed)).lengths
    rows = [o.data if isinstance(o, padless.Packed) else padless.pack(o, lengths).data for o in outputs]
    for each in rows[1:]:
        torch.testing.assert_close(each.float(), rows[0].float(), rtol=tolerance, atol=tolerance)
    times = dict.fromkeys(contestants, float("inf"))
    for _ in range(ROUNDS):
        for name, call in contestants.items():
            times[name] = min(times[name], milliseconds(call))
    own, *others = times
    ratios = "  ".join(f"{name} {times[name] / times[own]:.2f}" for name in others)
    print(f"{title}  {own} {times[own]:.3f} ms;  {ratios}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", nargs="*", help="; ".join(MODES) + "; default: all")
    parser.add_argument("--shapes", default="", help="numbers of the shapes, such as 0,3; default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    shapes = [SHAPES[int(n)] for n in arguments.shapes.split(",") if n] or SHAPES
    if unknown := set(arguments.mode) - set(MODES):
        parser.error(f"unknown modes: {', '.join(sorted(unknown))}")
    for mode in arguments.mode or MODES:
        for shape in shapes:
            compare(shape, mode)


if __name__ == "__main__":
    main()
