"""Times padded and packed batches as each policy of a report makes them, for `padless report --measure`."""

from __future__ import annotations

import os
import random
import time
from array import array
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from .. import __version__, backends, nn
from ..report.contents import Measured, Report, Timing
from ..report.network import Network
from ..report.survey import batches_at
from .cases import Contestant, gradients, packed_contestant, padded_contestant
from .facts import load
from .timing import check_contestants, time_by_turns

__all__ = ["measure_policies"]

_SAMPLE = 16  # batches of a policy, as far as the time allows
_TURNS = 5
_PADDED, _OURS, _ALONE = "torch padded", "padless", "torch, one sequence at a time"
_MOST_BYTES = 2 << 30  # of one batch, about; larger ones are not timed


def measure_policies(
    values: array[int],
    report: Report,
    *,
    threads: int | None,
    seconds: float,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Measured:
    """Times of some batches of each policy, by torch on the padded grid and by padless on the rows.

    Both have the same weights and rows, and are checked to give the same before they are timed, by turns.

    Args:
        values: the lengths that `report` is of.
        report: its network is timed.
        threads: None for as many as torch has.
        seconds: for a policy; at least one batch is timed.
        progress: called with how many policies are done, and how many there are.

    Raises:
        DisagreementError: the two computed different things.
    """
    network = report.network
    assert network is not None
    busy = load()  # of others: nothing has been measured yet
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    timings: dict[str, Timing] = {}
    notes = []
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = _layers(network)
            for done, policy in enumerate(report.policies):
                progress(done, len(report.policies))
                name = policy.batching.policy
                numbers = random.Random(0).sample(range(policy.batches), min(_SAMPLE, policy.batches))
                batches = batches_at(values, policy.batching, numbers)
                taken = [
                    lengths for lengths in batches if any(lengths) and _bytes(lengths, network) <= _MOST_BYTES
                ]
                if len(taken) < len(batches):
                    left = len(batches) - len(taken)
                    notes.append(
                        f"{name}: {left} of {len(batches)} batches left out, without rows or over 2 GiB padded"
                    )
                if taken:
                    timings[name] = _time_batches(taken, network, layers, seconds)
        return Measured((*_described(report, network), *_note_on_other_load(busy), *notes), timings)
    finally:
        torch.set_num_threads(before)


def _layers(network: Network) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Torch's layer and padless's, with the same weights."""
    name = network.cell.upper()
    options = {"num_layers": network.num_layers, "bidirectional": network.bidirectional}
    theirs = getattr(torch.nn, name)(network.input_size, network.hidden_size, **options)
    ours = getattr(nn, name)(network.input_size, network.hidden_size, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs.train(network.training), ours.train(network.training)


def _time_batches(
    batches: list[list[int]],
    network: Network,
    layers: tuple[torch.nn.Module, torch.nn.Module],
    seconds: float,
) -> Timing:
    """The sums of the medians of as many batches, in random order, as the time allows; at least one."""
    random.Random(0).shuffle(batches)
    deadline = time.perf_counter() + seconds
    padded_seconds = padless_seconds = 0.0
    rows = cells = done = 0
    for lengths in batches:
        left = deadline - time.perf_counter()
        if done and left <= 0:
            break
        # A sequence of length 0 costs the grid a line; torch packs none, so it is left out of both.
        lengths = [length for length in lengths if length]
        padded, ours = _contestants(lengths, network, layers)
        timed = time_by_turns({_PADDED: padded.step, _OURS: ours.step}, repeats=_TURNS, budget_seconds=left)
        padded_seconds += timed[_PADDED].median_seconds
        padless_seconds += timed[_OURS].median_seconds
        rows, cells, done = rows + sum(lengths), cells + len(lengths) * max(lengths), done + 1
    return Timing(done, rows, cells, padded_seconds, padless_seconds)


def _contestants(
    lengths: list[int], network: Network, layers: tuple[torch.nn.Module, torch.nn.Module]
) -> tuple[Contestant, Contestant]:
    """The padded and the packed way through one batch of random rows, which have been found to agree.

    Run both ways through time, a padded grid begins in the padding, and gives results that nobody uses; padless is
    then held against torch on each sequence alone.
    """
    theirs, ours = layers
    packed = pack_sequence(
        [torch.randn(length, network.input_size) for length in lengths], enforce_sorted=False
    )
    directions = 2 if network.bidirectional else 1
    gradient = torch.randn(packed.data.shape[0], directions * network.hidden_size)
    padded = padded_contestant(theirs, packed, gradient, network.training)
    padless = packed_contestant(ours, packed, gradient, network.training)
    reference, right = (
        (_ALONE, _alone(theirs, packed, gradient)) if network.bidirectional else (_PADDED, padded)
    )
    check_contestants(
        {reference: right, _OURS: padless},
        reference,
        where=f"{network}, {len(lengths)} sequences",
        rows=sum(lengths),
        width=max(network.input_size, directions * network.hidden_size),
        steps=max(lengths),
    )
    return padded, padless


def _alone(layer: torch.nn.Module, packed: PackedSequence, gradient: Tensor) -> Contestant:
    """Torch's layer on one sequence after another."""
    data = packed.data.clone().requires_grad_(layer.training)

    def step() -> PackedSequence:
        layer.zero_grad()
        with torch.set_grad_enabled(layer.training):
            outputs = [
                layer(sequence[:, None])[0][:, 0] for sequence in unpack_sequence(packed._replace(data=data))
            ]
            output = pack_sequence(outputs, enforce_sorted=False)
        if layer.training:
            output.data.backward(gradient)
        return output

    def results(output: PackedSequence) -> dict[str, Tensor]:
        return {"output": output.data.detach(), **gradients(layer, data.grad)}

    return Contestant(step, results)


def _bytes(lengths: Sequence[int], network: Network) -> int:
    """What the padded batch takes, about: the input and its gradient, gates and states of every layer, float32."""
    directions = 2 if network.bidirectional else 1
    a_cell = 2 * network.input_size + directions * network.hidden_size * (8 * network.num_layers + 2)
    return 4 * a_cell * len(lengths) * max(lengths)


def _described(report: Report, network: Network) -> list[str]:
    threads = torch.get_num_threads()
    clock = "1 thread, CPU time" if threads == 1 else f"{threads} threads, wall time"
    padded, ours = (
        f"torch {torch.__version__} on the padded grid",
        f"padless {__version__} ({backends.active()})",
    )
    sample = f"up to {_SAMPLE} random batches of a policy, random rows, medians of up to {_TURNS} turns"
    lines = [
        f"measured: {network}; {padded}, {ours} on the rows; {clock}",
        f"sampled: {sample}; results were checked equal before",
        "an epoch: the sample's seconds, padded in proportion to cells, padless to rows",
    ]
    if network.bidirectional:
        lines.append(
            "bidirectional: a padded grid begins in its padding, so padless is held against each sequence alone"
        )
    if any(policy.batching.is_shared for policy in report.policies):
        lines.append(
            "binpack: its padded batches have a line a sequence, since a recurrent layer cannot share one; "
            "an epoch in proportion to rows"
        )
    return lines


def _note_on_other_load(busy: float | None) -> list[str]:
    """A note where threads compete with other processes for cores, so that wall time includes waiting for them."""
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if busy is None or threads == 1 or round(busy) + threads <= cores:
        return []
    note = f"busy: {busy:.1f} processes wanted the {cores} cores before this began"
    return [f"{note}; --threads 1 counts CPU time, which they spare"]
