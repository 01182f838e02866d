"""Times the same training steps in padless, torch packed and torch padded, in turns."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .data import Data
from .model import Reader, packed_twin, padded_twin
from .train import loss_of

__all__ = ["CONTESTANTS", "Comparison", "compare"]

CONTESTANTS = ("padless", "torch packed", "torch padded")


@dataclass(frozen=True)
class Comparison:
    """Seconds that each contestant took for the same steps, and how much the losses differ."""

    steps: int
    seconds: dict[str, float]  # total of all steps
    largest_loss_difference: float

    def ratio(self, other: str) -> float:
        """How many times as long as padless `other` took."""
        return self.seconds[other] / self.seconds["padless"]


def compare(
    reader: Reader,
    batches: Sequence[Sequence[int]],
    data: Data,
    *,
    learning_rate: float,
    on_step: Callable[[int, int], None] = lambda done, steps: None,
) -> Comparison:
    """Train a copy of `reader` with each contestant on `batches`, in turns batch by batch.

    All start from the same weights. A step includes packing or padding, forward, loss, backward and optimizer. The
    order changes from batch to batch. `reader` itself is not changed. To warm up, temporary copies first run the
    shortest batch forward and backward once, untimed.
    """
    tensors = [torch.tensor(sequence) for sequence in data.sequences]
    labels = torch.tensor(data.labels)
    shortest = min(batches, key=lambda batch: max(len(tensors[i]) for i in batch))
    for model in _models(reader).values():
        loss_of(model, shortest, tensors, labels).backward()

    models = _models(reader)
    optimizers = {
        name: torch.optim.Adam(model.parameters(), lr=learning_rate) for name, model in models.items()
    }
    seconds: dict[str, float] = dict.fromkeys(CONTESTANTS, 0.0)
    difference = 0.0
    for turn, batch in enumerate(batches):
        losses = []
        for k in range(len(CONTESTANTS)):
            name = CONTESTANTS[(turn + k) % len(CONTESTANTS)]
            begin = time.perf_counter()
            loss = loss_of(models[name], batch, tensors, labels)
            optimizers[name].zero_grad()
            loss.backward()
            optimizers[name].step()
            losses.append(loss.item())
            seconds[name] += time.perf_counter() - begin
        difference = max(difference, max(losses) - min(losses))
        on_step(turn + 1, len(batches))
    return Comparison(len(batches), seconds, difference)


def _models(reader: Reader) -> dict[str, torch.nn.Module]:
    return {
        "padless": packed_twin(reader, by_torch=False),
        "torch packed": packed_twin(reader, by_torch=True),
        "torch padded": padded_twin(reader),
    }
