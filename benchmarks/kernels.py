"""Kernels alone, per cent of this machine's sgemm in the same run: useful FLOPs, CPU time (threads: wall time).

The product is the faster of MKL (torch.mm; on AMD it keeps to AVX2, 100 GF/s) and oneDNN (AVX-512, 220).

    python benchmarks/kernels.py [--cell LSTM GRU RNN_TANH] [--threads 1] [--rounds 7] [--torch]

Every round times each thing once, in turns with a 1536^3 product; a figure is the median over rounds of the ratio to
that round's product. Weights are packed inside the timed call in training (they change) and outside it in inference.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from padless.backends import _kernels as k
from padless.bench.cases import SHAPES

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}


def problem(
    cell: str, b: int, steps: int, h: int, threads: int, width: int | None = None, projection: int = 0
):
    width, output = width or h, projection or h
    torch.manual_seed(0)
    lengths = (torch.rand(b) ** 1.5 * (steps - 1)).int() + 1
    lengths[0] = steps
    lengths = lengths.sort(descending=True).values.long()
    sizes = (lengths[None] > torch.arange(steps)[:, None]).sum(1)
    n = int(lengths.sum())
    start = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.cumsum(0)[:-1]])
    slot = torch.arange(b)
    g = GATES[cell] * h
    weights = [torch.randn(g, w) / h**0.5 for w in (width, output)] + [torch.randn(g) for _ in range(2)]
    w_hr = torch.randn(projection, h) / h**0.5 if projection else None
    x, y = k.Rows(torch.randn(n, width), start, slot), k.Rows(torch.empty(n, output), start, slot)
    lstm = cell == "LSTM"
    state = lambda: k.States(torch.zeros(b, output), torch.zeros(b, h) if lstm else None)  # noqa: E731
    initial, final, d_initial = state(), state(), state()
    packed = k.pack_forward(cell, *weights, w_hr)
    dy, zero = torch.randn(n, output), state()
    common = {"state_rows": b, "threads": threads, "initial": initial, "hidden": h if projection else None}

    def infer():
        k.forward(cell, packed, x, y, sizes, n, final=final, **common)

    def train():
        saved = k.saved_width(cell, h)
        gates = torch.empty(n, saved) if saved else None
        cells = torch.empty(n, k.cells_width(cell, h)) if lstm else None
        k.forward(
            cell,
            k.pack_forward(cell, *weights, w_hr),
            x,
            y,
            sizes,
            n,
            final=final,
            gates=gates,
            cells=cells,
            **common,
        )
        grads = {
            "dw_ih": torch.empty(g, width),
            "dw_hh": torch.empty(g, output),
            "dw_hr": torch.empty(projection, h) if projection else None,
            "db_ih": torch.empty(g),
            "db_hh": torch.empty(g),
        }
        k.backward(
            cell, k.pack_backward(cell, *weights[:2], w_hr), x, y, sizes, n, gates=gates, cells=cells, dy=dy,
            d_final=zero, d_initial=d_initial, dx=torch.empty(n, width),
            **grads, **common,
        )  # fmt: skip

    module = getattr(torch.nn, cell.split("_")[0])(
        width, h, **({"proj_size": projection} if projection else {})
    )
    packed_x = torch.nn.utils.rnn.PackedSequence(x.data, sizes)

    def torch_infer():
        with torch.no_grad():
            module(packed_x)

    def torch_train():
        leaf = x.data.detach().requires_grad_()
        module(torch.nn.utils.rnn.PackedSequence(leaf, sizes))[0].data.backward(dy)

    flops = 2.0 * n * (g * (width + output) + h * projection)
    return n, flops, infer, train, torch_infer, torch_train


def seconds(clock, run, least: float) -> float:
    run()
    count, start = 0, clock()
    while True:
        run()
        count += 1
        took = clock() - start
        if took >= least:
            return took / count


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cell", nargs="+", default=["LSTM"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--shape", nargs="+", help="B,T,H or B,T,I,H or B,T,I,H,P")
    parser.add_argument("--torch", action="store_true", help="torch packed too")
    parser.add_argument("--isa")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.isa:
        k.force_isa(options.isa)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    a, b, c = (torch.randn(1536, 1536) for _ in range(3))
    mkl = lambda: torch.mm(a, b, out=c)  # noqa: E731
    onednn = lambda: torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")  # noqa: E731
    products = 2 * 1536**3 / seconds(clock, mkl, 0.2) / 1e9, 2 * 1536**3 / seconds(clock, onednn, 0.2) / 1e9
    product = mkl if products[0] > products[1] else onednn
    print(f"sgemm, GF/s: MKL {products[0]:.0f}, oneDNN {products[1]:.0f}")
    shapes = (
        [tuple(map(int, s.split(","))) for s in options.shape] if options.shape else [*map(tuple, SHAPES)]
    )
    print(f"{k.isa()}, {options.threads} thread(s)")
    for cell in options.cell:
        for shape in shapes:
            width, hidden, projection = {3: (*shape[2:] * 2, 0), 4: (*shape[2:], 0), 5: shape[2:]}[len(shape)]
            sizes = (shape[0], shape[1], hidden, options.threads, width, projection)
            n, flops, infer, train, torch_infer, torch_train = problem(cell, *sizes)
            ratios = {"infer": [], "train": [], "torch_infer": [], "torch_train": []}
            for _ in range(options.rounds):
                peak = 2 * 1536**3 / seconds(clock, product, 0.05)
                ratios["infer"].append(flops / seconds(clock, infer, 0.03) / peak)
                ratios["train"].append(3 * flops / seconds(clock, train, 0.05) / peak)
                if options.torch:
                    ratios["torch_infer"].append(flops / seconds(clock, torch_infer, 0.03) / peak)
                    ratios["torch_train"].append(3 * flops / seconds(clock, torch_train, 0.05) / peak)
            cells = "  ".join(f"{name} {100 * statistics.median(r):5.1f}" for name, r in ratios.items() if r)
            print(
                f"{cell:9} B,T,I,H,P={shape!s:24} N={n:6} sgemm {peak / 1e9:5.0f} GF/s   {cells}", flush=True
            )


if __name__ == "__main__":
    main()
