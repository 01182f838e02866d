"""An LSTM in bfloat16, padless beside float32 and torch padded: `python benchmarks/bf16.py [infer|train]`.

Milliseconds of CPU on one thread, the least of seven runs in turns, each side warmed for 15 ms. Lengths are drawn
between T/2 and T; torch's padded layer computes the padding. Outputs are checked first.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

import padless
from padless.bench.cases import SHAPES


def milliseconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    while time.perf_counter() - start < 0.015:
        call()
    begin = time.thread_time()
    call()
    return (time.thread_time() - begin) * 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mode", nargs="?", choices=("infer", "train"), default="infer")
    trains = parser.parse_args().mode == "train"
    torch.set_num_threads(1)
    torch.manual_seed(0)
    for batch, steps, width in SHAPES:
        lengths = torch.randint(steps // 2, steps + 1, (batch,))
        lengths[0] = steps
        rows = torch.randn(int(lengths.sum()), width)
        wide, narrow = padless.nn.LSTM(width, width), padless.nn.LSTM(width, width, dtype=torch.bfloat16)
        narrow.load_state_dict(wide.state_dict())
        theirs = torch.nn.LSTM(width, width, batch_first=True, dtype=torch.bfloat16)
        theirs.load_state_dict(wide.state_dict())
        packed, low = padless.Packed(rows, lengths), padless.Packed(rows.bfloat16(), lengths)
        padded = low.pad()
        torch.testing.assert_close(narrow(low)[0].data.float(), wide(packed)[0].data, rtol=0.05, atol=0.05)
        torch.testing.assert_close(
            padless.pack(theirs(padded)[0], lengths).data, narrow(low)[0].data, rtol=0.05, atol=0.05
        )

        def call(layer: torch.nn.Module, x: Tensor | padless.Packed) -> object:
            if not trains:
                with torch.no_grad():
                    return layer(x)
            layer.zero_grad()
            output = layer(x)[0]
            return (output if isinstance(output, Tensor) else output.data).sum().backward()

        sides = {
            "padless float32": (wide, packed),
            "padless bf16": (narrow, low),
            "torch padded bf16": (theirs, padded),
        }
        times: dict[str, float] = dict.fromkeys(sides, float("inf"))
        for _ in range(7):
            for name, (layer, x) in sides.items():
                times[name] = min(times[name], milliseconds(lambda layer=layer, x=x: call(layer, x)))
        fill = int(lengths.sum()) / (batch * steps)
        shown = "  ".join(f"{name} {ms:8.2f}" for name, ms in times.items())
        print(f"{batch:3} {steps:3} {width:3} fill {fill:.2f}  {shown}", flush=True)


if __name__ == "__main__":
    main()
