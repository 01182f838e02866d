"""padless's layers in torch's engines for many processes: gradients of several are those of one, on the whole batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from oracle import run_layers
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

import padless
from padless.losses import global_mean

INPUT, HIDDEN = 3, 5

# Rows of each rank's sequences: uneven, with sequences without rows, and one rank without any.
SHARES = {
    2: [[4, 0, 6, 1], [2]],
    4: [[4, 0], [6, 1, 2, 3], [0, 0], [7]],
}
KINDS: dict[str, Callable[[Any, list[Tensor]], list[Tensor]]] = {}


def kind(function: Any) -> Any:
    KINDS[function.__name__] = function
    return function


@kind
def packed_sequence(model: Any, sequences: list[Tensor]) -> list[Tensor]:
    output, _ = model(padless.rnn.pack_sequence(sequences, enforce_sorted=False))
    return padless.rnn.unpack_sequence(output)


@kind
def packed(model: Any, sequences: list[Tensor]) -> list[Tensor]:
    output, _ = model(padless.pack(sequences))
    return output.unpack()


@kind
def padded_with_lengths(model: Any, sequences: list[Tensor]) -> list[Tensor]:
    lengths = [len(s) for s in sequences]
    steps = max(1, *lengths)
    grid = torch.stack([torch.cat([s, s.new_full((steps - len(s), INPUT), 9)]) for s in sequences], 1)
    output, _ = model(grid, lengths=lengths)
    return [output[:n, b] for b, n in enumerate(lengths)]


@kind
def nested(model: Any, sequences: list[Tensor]) -> list[Tensor]:
    output, _ = model(padless.pack(sequences).to_nested())
    return list(output.unbind())


def sequences_of(world_size: int, dtype: torch.dtype) -> list[list[Tensor]]:
    """Each rank's sequences: the same whoever asks."""
    generator = torch.Generator().manual_seed(3)
    return [
        [torch.randn(n, INPUT, generator=generator, dtype=torch.float64).to(dtype) for n in share]
        for share in SHARES[world_size]
    ]


def new_layer(cell: str, dtype: torch.dtype, family: Any = torch.nn, **options: Any) -> Any:
    torch.manual_seed(5)
    return getattr(family, cell)(INPUT, HIDDEN, bidirectional=True, **options).to(dtype)


def loss_sum(outputs: Sequence[Tensor]) -> Tensor:
    return torch.cat([(output + 1).pow(3) for output in outputs]).sum()


def expected_of(world_size: int, cell: str, options: dict[str, Any]) -> dict[str, Tensor]:
    """Gradients of the mean over the rows of all ranks, by the oracle: one process, float64."""
    layer = new_layer(cell, torch.float64, **options)
    weights = {name: p.detach().requires_grad_() for name, p in layer.named_parameters()}
    sequences = [s for share in sequences_of(world_size, torch.float64) for s in share]
    nonlinearity = options.get("nonlinearity", "tanh")
    layers = {"num_layers": layer.num_layers, "bidirectional": True, "nonlinearity": nonlinearity}
    outputs, _ = run_layers(cell, weights, sequences, **layers)
    (loss_sum(outputs) / sum(map(len, sequences))).backward()
    return {name: w.grad for name, w in weights.items() if w.grad is not None}


def assert_near(got: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 1e-5) -> None:
    assert got.keys() == expected.keys()
    for name, theirs in expected.items():
        scale = max(1.0, float(theirs.abs().max()))
        difference = float((got[name].double() - theirs).abs().max())
        assert difference <= tolerance * scale, f"{name}: {difference:.2e} of {scale:.2e}"


def gradients_of_a_rank(
    cell: str, options: dict[str, Any], kind: str, ddp: dict[str, Any], when: str = "layer", steps: int = 3
) -> list[dict[str, Tensor]]:
    """Gradients that DDP leaves on this rank, step by step (it may lay its buckets anew after the first)."""
    layer = new_layer(cell, torch.float32, padless.nn if when == "layer" else torch.nn, **options)
    if when == "before":
        padless.accelerate(layer)
    model: Any = DistributedDataParallel(layer, **ddp)
    if when == "after":
        padless.accelerate(model)
    sequences = sequences_of(distributed.get_world_size(), torch.float32)[distributed.get_rank()]
    rows = sum(map(len, sequences))
    found = []
    for _ in range(steps):
        model.zero_grad()
        global_mean(loss_sum(KINDS[kind](model, sequences)), rows).backward()
        found.append({name: p.grad.clone() for name, p in layer.named_parameters() if p.grad is not None})
    assert type(layer).__module__.startswith("padless")
    return found


def check(ranks: Any, world_size: int, cell: str, options: dict[str, Any], *args: Any) -> None:
    expected = expected_of(world_size, cell, options)
    of_ranks = ranks(world_size).run(gradients_of_a_rank, cell, options, *args)
    for steps in of_ranks:
        for got in steps:
            assert_near(got, expected)
    for steps in of_ranks[1:]:
        assert all(torch.equal(g, of_ranks[0][i][n]) for i, got in enumerate(steps) for n, g in got.items())


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("cell", "options"),
    [
        ("RNN", {}),
        ("RNN", {"nonlinearity": "relu"}),
        ("LSTM", {"num_layers": 2}),
        ("LSTM", {"proj_size": 2}),
        ("GRU", {"num_layers": 2, "bias": False}),
    ],
)
def test_gradients_of_several_processes_are_those_of_one(
    ranks: Any, world_size: int, kind: str, cell: str, options: dict[str, Any]
) -> None:
    check(ranks, world_size, cell, options, kind, {})


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize(
    "ddp",
    [
        {"find_unused_parameters": True},
        {"static_graph": True},
        {"gradient_as_bucket_view": True},
        {"bucket_cap_mb": 1e-4},  # a bucket a parameter
        {"static_graph": True, "gradient_as_bucket_view": True, "bucket_cap_mb": 1e-4},
    ],
    ids=lambda ddp: "+".join(ddp),
)
@pytest.mark.parametrize("kind", ["packed_sequence", "packed"])
def test_every_way_of_ddp_gives_them(ranks: Any, world_size: int, ddp: dict[str, Any], kind: str) -> None:
    check(ranks, world_size, "LSTM", {"num_layers": 2}, kind, ddp)


@pytest.mark.parametrize("when", ["before", "after"])
def test_accelerate_may_come_before_or_after_ddp(ranks: Any, when: str) -> None:
    check(ranks, 2, "GRU", {}, "packed", {}, when)
