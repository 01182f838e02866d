"""Episodes that end inside a rollout: one layer call on the pieces, beside a loop over time that resets states.

    python benchmarks/episodes.py

The loop is what recurrent policies do where an episode ends somewhere in the batch: `torch.nn.LSTM` a step, with states
set to zero where an episode begins. Forward and backward, one thread, CPU time, least of 7 in turns; outputs are
checked equal first.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor

import padless
from padless import ops


def case(
    envs: int, steps: int, width: int, mean_episode: int
) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    """The outputs `(envs, steps, width)` of the loop and of one call, as functions."""
    torch.manual_seed(0)
    layer = torch.nn.LSTM(width, width)
    fast = padless.accelerate(torch.nn.LSTM(width, width))
    fast.load_state_dict(layer.state_dict())
    x = torch.randn(envs, steps, width)
    begins = torch.rand(envs, steps) < 1 / mean_episode
    h0, c0 = torch.randn(1, envs, width), torch.randn(1, envs, width)
    rollouts = padless.Packed(x.flatten(0, 1), [steps] * envs)
    numbers = rollouts.map(lambda rows: torch.arange(len(rows)))

    def loop() -> Tensor:
        h, c, outputs = h0, c0, []
        for t in range(steps):
            going = (~begins[:, t]).float()[None, :, None]
            output, (h, c) = layer(x[:, t][None], (h * going, c * going))
            outputs.append(output[0])
        return torch.stack(outputs, 1)

    def cut() -> Tensor:
        pieces, owner = ops.cut(rollouts, begins.flatten())
        # The first piece of a rollout goes on with its state, unless an episode begins there.
        is_first = ops.first(ops.cut(numbers, begins.flatten())[0]) % steps == 0
        goes_on = (is_first & ~begins[owner, 0]).float()[None, :, None]
        return fast(pieces, (h0[:, owner] * goes_on, c0[:, owner] * goes_on))[0].data.view(envs, steps, width)

    return loop, cut


def main() -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}; envs x steps, width, mean episode: loop ms, cut ms, loop / cut")
    for sizes in ((8, 128, 64, 40), (16, 128, 128, 40), (64, 128, 256, 100)):
        calls = case(*sizes)
        torch.testing.assert_close(calls[1](), calls[0]())
        best = [float("inf")] * 2
        for turn in range(8):
            for i, call in enumerate(calls):
                begin = time.thread_time()
                call().square().sum().backward()
                if turn:
                    best[i] = min(best[i], 1000 * (time.thread_time() - begin))
        envs, steps, width, mean_episode = sizes
        print(
            f"{envs} x {steps}, {width}, {mean_episode}: {best[0]:.1f}, {best[1]:.1f}, {best[0] / best[1]:.2f}"
        )


if __name__ == "__main__":
    main()
