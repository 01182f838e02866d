"""Times the collectives of a training step over gloo on one machine, and measures the size of a checkpoint.

    python benchmarks/collectives.py [--ranks 2] [--json FILE]

Wall time, medians of rank 0. The loopback is no network: figures for one are to be computed from its bandwidth.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed, multiprocessing

import padless
from padless.bench.facts import facts
from padless.losses import global_mean

FLOATS = (250_000, 2_500_000, 25_000_000)  # 1, 10 and 100 MB of gradients


def median_seconds(call: Callable[[], Any], times: int) -> float:
    found = []
    for _ in range(times):
        distributed.barrier()
        begin = time.perf_counter()
        call()
        found.append(time.perf_counter() - begin)
    return statistics.median(found)


def written(path: Path, hidden: int) -> dict[str, Any]:
    """A model with Adam's state, saved as examples/train_ddp.py does it."""
    model = torch.nn.ModuleDict({"lstm": padless.nn.LSTM(hidden, hidden, num_layers=2)})
    optimizer = torch.optim.Adam(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()  # type: ignore[union-attr]
    optimizer.step()
    begin = time.perf_counter()
    content = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, content)
    with open(path, "wb") as file:
        file.write(content.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "bytes": path.stat().st_size,
        "seconds": time.perf_counter() - begin,
    }


def measure(rank: int, ranks: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    loss = torch.tensor(3.0, requires_grad=True)
    result: dict[str, Any] = {
        **facts(1),
        "clock": "wall",
        "ranks": ranks,
        "global_mean_seconds": median_seconds(lambda: global_mean(loss, 5), 500),
        "all_reduce": [
            {"bytes": 4 * n, "seconds": median_seconds(lambda n=n: distributed.all_reduce(torch.ones(n)), 15)}
            for n in FLOATS
        ],
    }
    if rank == 0:
        result["checkpoints"] = [written(Path(folder) / "checkpoint.pt", hidden) for hidden in (256, 1024)]
        Path(folder, "result.json").write_text(json.dumps(result))
    distributed.barrier()
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", type=int, default=2, metavar="N", help="processes on this machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(measure, (options.ranks, folder), nprocs=options.ranks)  # pyright: ignore[reportPrivateImportUsage]
        result = json.loads(Path(folder, "result.json").read_text())
    print(f"global_mean, {options.ranks} ranks: {result['global_mean_seconds'] * 1e6:.0f} us")
    for row in result["all_reduce"]:
        rate = row["bytes"] / row["seconds"] / 1e6
        print(f"all-reduce of {row['bytes'] / 1e6:5.0f} MB: {row['seconds'] * 1e3:8.2f} ms, {rate:.0f} MB/s")
    for row in result["checkpoints"]:
        each = row["bytes"] / row["parameters"]
        print(
            f"checkpoint of {row['parameters'] / 1e6:.2f} million parameters: {row['bytes'] / 1e6:.1f} MB, "
            f"{each:.2f} bytes a parameter, {row['seconds']:.2f} s"
        )
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
