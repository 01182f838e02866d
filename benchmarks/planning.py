"""What plans of batches are worth and what they cost, on log-normal lengths.

    python benchmarks/planning.py [--json FILE] [--large 100000000]

Lengths: log-normal, median 70, sigma 0.7, cut to 1..1,000 (mean 89), uint16. A plan is checked before it is counted:
each index once, the budget kept, every rank as many batches as another. Seconds are CPU time of one rank that draws
all its batches. Beside `random` on 4 ranks stands torch's DistributedSampler with its BatchSampler. `--large` plans
as many lengths out of a file, each policy in a process of its own, and reads its memory: the high-water mark of the
resident set less the file's own pages (Linux).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from padless.planning import batches

COUNT, MEDIAN, SIGMA, LONGEST = 1_000_000, 70, 0.7, 1000
CASES: list[dict[str, Any]] = [
    {"policy": policy, **budget}
    for policy in ("random", "bucket", "sorted", "binpack")
    for budget in ({"batch_size": 32}, {"tokens": 4096}, {"tokens": 4096, "padded": True})
    if policy != "binpack" or budget == {"tokens": 4096}
]
LARGE = [case for case in CASES if "batch_size" in case or case["policy"] == "binpack"]


def draw(count: int, seed: int = 0) -> np.ndarray:
    numbers = np.random.default_rng(seed).lognormal(np.log(MEDIAN), SIGMA, count)
    return np.clip(numbers, 1, LONGEST).astype(np.uint16)


def counted(lengths: np.ndarray, plans: list[list[np.ndarray]]) -> dict[str, float]:
    """Fill of the padded grid, and work that waits: each step lasts as long as its longest rank."""
    rows = np.array([[int(lengths[batch].sum()) for batch in plan] for plan in plans])
    cells = np.array([[len(batch) * int(lengths[batch].max()) for batch in plan] for plan in plans])
    return {
        "batches_a_rank": rows.shape[1],
        "rows_a_batch": rows.mean(),
        "fill": rows.sum() / cells.sum(),
        "idle_rows": 1 - rows.sum() / (rows.max(0).sum() * len(plans)),
        "idle_cells": 1 - cells.sum() / (cells.max(0).sum() * len(plans)),
    }


def check(lengths: np.ndarray, plans: list[list[np.ndarray]], case: dict[str, Any]) -> None:
    indices = np.concatenate([batch for plan in plans for batch in plan])
    assert len({len(plan) for plan in plans}) == 1
    assert (np.bincount(indices, minlength=len(lengths)) == 1).all()
    for batch in (batch for plan in plans for batch in plan):
        if "batch_size" in case:
            assert 1 <= len(batch) <= case["batch_size"]
        else:
            lots = lengths[batch].astype(np.int64)
            assert (lots.max() * len(lots) if case.get("padded") else lots.sum()) <= case["tokens"]


def measure(lengths: np.ndarray, case: dict[str, Any], ranks: int) -> dict[str, Any]:
    begin = time.process_time()
    plans = [list(batches(lengths, world_size=ranks, **case))]
    seconds = time.process_time() - begin
    plans += [list(batches(lengths, world_size=ranks, rank=rank, **case)) for rank in range(1, ranks)]
    check(lengths, plans, case)
    found = counted(lengths, plans)
    if "tokens" in case:
        found["budget_filled"] = found["rows_a_batch"] / case["tokens"]
    return {**case, "ranks": ranks, "seconds": seconds, **found}


def torch_plans(lengths: np.ndarray, ranks: int) -> list[list[np.ndarray]]:
    """Plans of torch's DistributedSampler: a shuffled part for each rank, cut into batches of 32."""
    from torch.utils.data import BatchSampler, DistributedSampler

    parts = [DistributedSampler(range(len(lengths)), ranks, rank) for rank in range(ranks)]  # type: ignore[arg-type]
    return [[np.array(batch) for batch in BatchSampler(part, 32, drop_last=False)] for part in parts]


def pools(lengths: np.ndarray) -> list[dict[str, Any]]:
    """What the size of a pool is worth."""
    cases = [("bucket", {"batch_size": 32}, n) for n in (256, 1024, 4096, 16384, 65536)]
    cases += [("binpack", {"tokens": 4096}, n) for n in (1024, 4096, 16384, 65536, 262144)]
    found = []
    for policy, budget, pool in cases:
        row = measure(lengths, {"policy": policy, **budget, "pool": pool}, 1)
        found.append({key: row[key] for key in ("policy", "pool", "fill", "rows_a_batch", "seconds")})
    return found


def plan_out_of(path: str, case: dict[str, Any]) -> dict[str, Any]:
    """Draws one epoch of lengths in a file; run in a process of its own."""
    lengths = np.memmap(path, np.uint16, "r")
    begin, count, drawn = time.process_time(), 0, 0
    for batch in batches(lengths, **case):
        count += 1
        drawn += len(batch)
    assert drawn == len(lengths)
    return {
        **case,
        "sequences": drawn,
        "batches": count,
        "seconds": time.process_time() - begin,
        "peak_megabytes": private_megabytes(),
    }


def private_megabytes() -> float:
    """Peak of the resident set without the pages of files (Linux)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    found = {words[0]: int(words[1]) for words in lines if words[0] in ("VmHWM:", "RssFile:")}
    return (found["VmHWM:"] - found["RssFile:"]) / 1024


def large(
    count: int, script: str, cases: list[dict[str, Any]], line: Callable[[dict[str, Any]], str]
) -> list[dict[str, Any]]:
    """The results of `script --out-of FILE CASE` for each case; FILE has `count` lengths."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lengths.uint16"
        with path.open("wb") as file:
            for start in range(0, count, 10_000_000):
                file.write(draw(min(10_000_000, count - start), seed=start).tobytes())
        found = []
        for case in cases:
            command = [sys.executable, script, "--out-of", str(path), json.dumps(case)]
            found.append(
                json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
            )
            print(line(found[-1]), flush=True)
        return found


def table_line(row: dict[str, Any]) -> str:
    budget = (
        f"batch {row['batch_size']}"
        if "batch_size" in row
        else f"{row['tokens']} " + ("cells" if row.get("padded") else "rows")
    )
    shown = f"{row['policy']:27}{budget:12}"
    for key, form in (
        ("ranks", "{} ranks"),
        ("seconds", "{:.2f} s"),
        ("fill", "fill {:.3f}"),
        ("budget_filled", "budget {:.4f}"),
        ("idle_rows", "idle rows {:.4f}"),
        ("idle_cells", "idle cells {:.4f}"),
        ("peak_megabytes", "{:.0f} MB"),
    ):
        shown += f"{form.format(row[key]):>19}" if key in row else ""
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE as JSON")
    parser.add_argument("--large", type=int, default=0, metavar="N", help="plan N lengths out of a file, too")
    parser.add_argument("--out-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out_of:
        print(json.dumps(plan_out_of(options.out_of[0], json.loads(options.out_of[1]))))
        return
    lengths, rows = draw(COUNT), []
    for case in CASES:
        for ranks in (1, 4):
            rows.append(measure(lengths, case, ranks))
            print(table_line(rows[-1]), flush=True)
    torchs = {"policy": "torch's DistributedSampler", "batch_size": 32, "ranks": 4}
    rows.append({**torchs, **counted(lengths, torch_plans(lengths, 4))})
    print(table_line(rows[-1]))
    result = {
        "lengths": f"log-normal, median {MEDIAN}, sigma {SIGMA}, 1 to {LONGEST}",
        "sequences": COUNT,
        "plans": rows,
    }
    result["pools"] = pools(lengths)
    if options.large:
        result["large"] = large(options.large, __file__, LARGE, table_line)
    if options.json:
        from padless.bench.facts import facts

        options.json.write_text(json.dumps({**facts(1), **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
