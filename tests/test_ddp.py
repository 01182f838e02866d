"""padless's layers in torch's engines for many processes: gradients of several are those of one, on the whole batch."""

from __future__ import annotations

import logging
import os
import signal
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.nn.parallel import DistributedDataParallel

import padless
from padless.losses import global_mean

from .oracle import run_layers

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


@pytest.mark.parametrize("backend", padless.backends.available())
def test_every_backend_gives_them(ranks: Any, backend: str) -> None:
    expected = expected_of(2, "LSTM", {})
    for steps in ranks(2).run(gradients_by_backend, backend):
        assert_near(steps[0], expected)


def gradients_by_backend(backend: str) -> list[dict[str, Tensor]]:
    with padless.backends.use(backend):
        return gradients_of_a_rank("LSTM", {}, "packed", {}, steps=1)


def gradients_of_a_compiled_step() -> dict[str, Tensor]:
    layer = new_layer("LSTM", torch.float32, padless.nn)
    model = DistributedDataParallel(layer)
    sequences = sequences_of(2, torch.float32)[distributed.get_rank()]

    def step(batch: padless.Packed, count: int) -> Tensor:
        output, _ = model(batch)
        return global_mean((output.data + 1).pow(3).sum(), count)

    logging.disable(logging.WARNING)  # Dynamo speaks of the profiler's marks in DDP
    with warnings.catch_warnings():  # and looks for gradients of tensors that are no leaves
        warnings.simplefilter("ignore")
        compiled = torch.compile(step, backend="aot_eager")
        compiled(padless.pack(sequences), sum(map(len, sequences))).backward()
    return {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}


def test_a_step_may_be_compiled(ranks: Any) -> None:
    expected = expected_of(2, "LSTM", {})
    for got in ranks(2).run(gradients_of_a_compiled_step):
        assert_near(got, expected)


def gradients_of_a_compiled_model() -> dict[str, Tensor]:
    layer = new_layer("LSTM", torch.float32, padless.nn)
    sequences = sequences_of(2, torch.float32)[distributed.get_rank()]
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = DistributedDataParallel(
            torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
        )
        output, _ = model(padless.pack(sequences))
        global_mean((output.data + 1).pow(3).sum(), sum(map(len, sequences))).backward()
    return {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}


def test_a_model_may_be_compiled_inside_of_ddp(ranks: Any) -> None:
    expected = expected_of(2, "LSTM", {})
    for got in ranks(2).run(gradients_of_a_compiled_model):
        assert_near(got, expected)


class Branches(torch.nn.Module):
    """Two layers, of which a forward uses one; it flattens parameters each time, as models for GPUs do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([new_layer("GRU", torch.float32, padless.nn) for _ in range(2)])

    def forward(self, batch: dict[str, Any]) -> dict[str, Any]:
        layer = self.layers[batch["branch"]]
        layer.flatten_parameters()
        rows, state = layer(batch["rows"])
        return {"rows": rows, "states": (state, rows.pad())}


def gradients_of_branches() -> list[list[bool]]:
    model = DistributedDataParallel(Branches(), find_unused_parameters=True)
    sequences = sequences_of(distributed.get_world_size(), torch.float32)[distributed.get_rank()]
    touched = []
    for branch in (0, 1, 1):
        model.zero_grad()
        output = model({"rows": padless.pack(sequences), "branch": branch})
        mean = global_mean(loss_sum(output["rows"].unpack()), output["rows"].data.shape[0])
        mean.backward()
        assert_near(
            {n: p.grad for n, p in model.module.layers[branch].named_parameters() if p.grad is not None},
            expected_of(distributed.get_world_size(), "GRU", {}),
        )
        touched.append([any(p.grad is not None for p in layer.parameters()) for layer in model.module.layers])
    return touched


def test_a_layer_that_a_forward_leaves_out_gets_no_gradient(ranks: Any) -> None:
    for touched in ranks(2).run(gradients_of_branches):
        assert touched == [[True, False], [False, True], [False, True]]


def gradients_of_last_states() -> dict[str, Tensor]:
    """Of a loss that reads the last states alone, where rank 1 has no sequence with rows."""
    layer = new_layer("LSTM", torch.float64, padless.nn)
    model = DistributedDataParallel(layer)
    sequences = (
        sequences_of(2, torch.float64)[0] if distributed.get_rank() == 0 else [torch.zeros(0, INPUT).double()]
    )
    _, (h, c) = model(padless.pack(sequences))
    global_mean(h.square().sum() + c.sum(), len(sequences)).backward()
    return {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}


def test_a_rank_without_rows_takes_part_where_only_last_states_are_read(ranks: Any) -> None:
    layer = new_layer("LSTM", torch.float64)
    weights = {name: p.detach().requires_grad_() for name, p in layer.named_parameters()}
    sequences = [*sequences_of(2, torch.float64)[0], torch.zeros(0, INPUT).double()]
    _, (h, c) = run_layers("LSTM", weights, sequences, bidirectional=True)
    ((h.square().sum() + c.sum()) / len(sequences)).backward()
    for got in ranks(2).run(gradients_of_last_states):
        assert_near(got, {name: w.grad for name, w in weights.items() if w.grad is not None}, 1e-12)


# --- FSDP -----------------------------------------------------------------------------------------


def gradients_under_fsdp(world_size: int, kind: str, precision: Any) -> dict[str, Tensor]:
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = torch.distributed.init_device_mesh("cpu", (world_size,))
    layer = padless.accelerate(new_layer("LSTM", torch.float32, num_layers=2))
    policy = MixedPrecisionPolicy(param_dtype=precision, reduce_dtype=torch.float32)
    model = fully_shard(layer, mesh=mesh, mp_policy=policy)
    sequences = sequences_of(world_size, torch.float32)[distributed.get_rank()]
    warnings.filterwarnings(
        "ignore", ".*returned a view tensor.*"
    )  # FSDP's word on any output that was reshaped
    for _ in range(2):
        model.zero_grad()
        outputs = [output.float() for output in KINDS[kind](model, sequences)]
        global_mean(loss_sum(outputs), sum(map(len, sequences))).backward()
    assert isinstance(model, padless.nn.LSTM)
    found: dict[str, Any] = {name: p.grad for name, p in model.named_parameters()}
    return {name: grad.full_tensor() for name, grad in found.items()}


@pytest.mark.parametrize("world_size", [2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_fsdp_gives_the_gradients_of_one_process(ranks: Any, world_size: int, kind: str) -> None:
    expected = expected_of(world_size, "LSTM", {"num_layers": 2})
    for got in ranks(world_size).run(gradients_under_fsdp, world_size, kind, None):
        assert_near(got, expected)


def test_fsdp_casts_a_packed_batch_for_mixed_precision(ranks: Any) -> None:
    expected = expected_of(2, "LSTM", {"num_layers": 2})
    for got in ranks(2).run(gradients_under_fsdp, 2, "packed", torch.bfloat16):
        assert_near(got, expected, 64 * 2.0**-8)  # bfloat16: 8 bits


# --- a rank is lost -------------------------------------------------------------------------------


def step_with_a_loss(dies_in_backward: bool) -> str:
    model = DistributedDataParallel(new_layer("LSTM", torch.float32, padless.nn))
    sequences = sequences_of(2, torch.float32)[distributed.get_rank()]
    is_lost = distributed.get_rank() == 1
    outputs = packed(model, sequences)
    if is_lost and not dies_in_backward:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        mean = global_mean(loss_sum(outputs), sum(map(len, sequences)))
        if is_lost:
            os.kill(os.getpid(), signal.SIGKILL)
        mean.backward()
    except RuntimeError as error:
        return str(error)
    return "nothing was raised"


@pytest.mark.parametrize("dies_in_backward", [False, True])
def test_the_loss_of_a_rank_is_an_error_on_the_others_and_no_hang(ranks: Any, dies_in_backward: bool) -> None:
    error, nothing = ranks(2).run(step_with_a_loss, dies_in_backward, lost=1)
    assert nothing is None
    assert "onnection" in error, error  # gloo: Connection closed by peer, or reset
