"""How long ranks wait for each other: plans of padless beside torch's DistributedSampler, on log-normal lengths.

    python benchmarks/ranks.py [--json FILE] [--large 100000000]

Index arithmetic only, no processes: a step lasts as long as its slowest rank, and what the others lack in work, they
wait. Work is counted twice: in rows, which is what a step costs where rows are computed one after the other (a CPU),
and in time steps of the longest sequence, which is what it costs where a device computes all sequences of a batch at
once. The lengths are those of planning.py, batches have 32 sequences, or for binpack the rows that 32 sequences have
on average. Every plan is checked before it is counted.

`--large` draws that many lengths into a file and tells what one rank of 64 pays, in CPU time and memory, to open them,
to draw its first batch, to tell its state, and to go on from the middle of an epoch.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from planning import LONGEST, MEDIAN, SIGMA, check, draw, large, private_megabytes, torch_plans

from padless.planning import batches

COUNT, BATCH = 1 << 18, 32
RANKS = (2, 4, 8, 64)

Plans = list[list[np.ndarray]]  # by rank, its batches


def waiting(lengths: np.ndarray, plans: Plans) -> dict[str, float]:
    """Shares of the ranks' time, 0 to 1, by rows and by longest sequences; and of the worst single step, by rows."""
    rows = np.array([[int(lengths[batch].sum()) for batch in plan] for plan in plans])
    steps = np.array([[int(lengths[batch].max()) for batch in plan] for plan in plans])
    return {
        "idle_rows": 1 - rows.mean(0).sum() / rows.max(0).sum(),
        "idle_rows_worst_step": float((1 - rows.mean(0) / rows.max(0)).max()),
        "idle_time_steps": 1 - steps.mean(0).sum() / steps.max(0).sum(),
    }


def start_out_of(path: str, case: dict[str, Any]) -> dict[str, Any]:
    """What rank 0 of 64 pays before it trains; run in a process of its own."""
    from padless.data import LengthBatchSampler

    def seconds(call: Any) -> float:
        begin = time.process_time()
        call()
        return time.process_time() - begin

    lengths = np.memmap(path, np.uint16, "r")
    before = private_megabytes()
    samplers: list[Any] = []

    def sampler() -> None:
        samplers.append(LengthBatchSampler(lengths, world_size=64, rank=0, **case))

    opened, first = seconds(sampler), seconds(lambda: next(iter(samplers[0])))
    middle = len(samplers[0]) // 2
    told = seconds(lambda: samplers[0].state_dict(middle))
    state = samplers[0].state_dict(middle)
    sampler()
    resumed = seconds(lambda: (samplers[1].load_state_dict(state), next(iter(samplers[1]))))
    return {
        **case,
        "sequences": len(lengths),
        "open_seconds": opened,
        "first_batch_seconds": first,
        "first_state_seconds": told,
        "resume_seconds": resumed,
        "megabytes": private_megabytes() - before,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE as JSON")
    parser.add_argument(
        "--large", type=int, default=0, metavar="N", help="start on N lengths out of a file, too"
    )
    parser.add_argument("--out-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.out_of:
        print(json.dumps(start_out_of(options.out_of[0], json.loads(options.out_of[1]))))
        return
    lengths = draw(COUNT)
    tokens = round(BATCH * float(lengths.mean()))
    cases: dict[str, dict[str, Any]] = {
        "random": {"policy": "random", "batch_size": BATCH},
        "bucket": {"policy": "bucket", "batch_size": BATCH},
        "binpack": {"policy": "binpack", "tokens": tokens},
    }
    found = []
    print(f"{'plan':30}{'ranks':>6}{'idle rows':>12}{'worst step':>12}{'idle time steps':>18}")
    for ranks in RANKS:
        for name in ("torch's DistributedSampler", *cases):
            if name in cases:
                case = cases[name]
                plans = [list(batches(lengths, world_size=ranks, rank=rank, **case)) for rank in range(ranks)]
                check(lengths, plans, case)
            else:
                plans = torch_plans(lengths, ranks)
            row = {"plan": name, "ranks": ranks, **waiting(lengths, plans)}
            found.append(row)
            print(
                f"{name:30}{ranks:6}{row['idle_rows']:12.2%}{row['idle_rows_worst_step']:12.2%}"
                f"{row['idle_time_steps']:18.2%}",
                flush=True,
            )
    started = [cases["random"], cases["bucket"]]
    if options.json:
        from padless.bench.facts import facts

        told = {
            "lengths": f"log-normal, median {MEDIAN}, sigma {SIGMA}, 1 to {LONGEST}",
            "sequences": COUNT,
            "batch_size": BATCH,
            "tokens": tokens,
            "plans": found,
            "start": large(options.large, __file__, started, str) if options.large else [],
        }
        options.json.write_text(json.dumps({**facts(1), **told}, indent=1) + "\n")


if __name__ == "__main__":
    main()
