"""Times padded and packed batches made by each policy of a report, for `padless report --measure`."""

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

_SAMPLE = 16  # batches per policy, if time allows
_ROUNDS = 5
_PADDED, _OURS, _ALONE = "torch padded", "padless", "torch, one sequence at a time"
_MOST_BYTES = 2 << 30  # approximate size of one batch; larger batches are not timed


def measure_policies(
    values: array[int],
    report: Report,
    *,
    threads: int | None,
    seconds: float,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> Measured:
    """Times of sampled batches of each policy, by torch on the padded grid and by padless on the rows.

    Both get the same weights and rows; their results are checked for equality, then they are timed in turns.

    Args:
        values: the lengths that `report` describes.
        report: the report whose network is timed.
        threads: number of threads; None for torch's number.
        seconds: time limit per policy; at least one batch is timed.
        progress: called with the number of policies done and the number of all policies.

    Raises:
        DisagreementError: the results differ.
        ValueError: the report has no network.
    """
    network = report.network
    if network is None:
        raise ValueError("measure_policies needs a report with a network")
    busy = load()  # of other processes: nothing has been measured yet
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
    """Torch's and padless's layer, with the same weights."""
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
    """The sums of the medians of as many batches, in random order, as time allows; at least one."""
    random.Random(0).shuffle(batches)
    deadline = time.perf_counter() + seconds
    padded_seconds = padless_seconds = 0.0
    rows = cells = done = 0
    for lengths in batches:
        left = deadline - time.perf_counter()
        if done and left <= 0:
            break
        # A sequence of length 0 costs a line of the grid, but torch cannot pack it, so it is left out of both.
        lengths = [length for length in lengths if length]
        padded, ours = _contestants(lengths, network, layers)
        timed = time_by_turns({_PADDED: padded.step, _OURS: ours.step}, repeats=_ROUNDS, budget_seconds=left)
        padded_seconds += timed[_PADDED].median_seconds
        padless_seconds += timed[_OURS].median_seconds
        rows, cells, done = rows + sum(lengths), cells + len(lengths) * max(lengths), done + 1
    return Timing(done, rows, cells, padded_seconds, padless_seconds)


def _contestants(
    lengths: list[int], network: Network, layers: tuple[torch.nn.Module, torch.nn.Module]
) -> tuple[Contestant, Contestant]:
    """The padded and the packed contestant for one batch of random rows, after checking that their results agree.

    The reverse direction of a bidirectional layer on a padded grid begins in the padding, so its results are useless;
    padless is then compared with torch on each sequence alone.
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
    """Approximate size of the padded batch: input and its gradient, gates and states of all layers, float32."""
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
    sample = f"up to {_SAMPLE} random batches per policy, random rows, medians of up to {_ROUNDS} rounds"
    lines = [
        f"measured: {network}; {padded}, {ours} on the rows; {clock}",
        f"sampled: {sample}; results were checked for equality first",
        "epoch: the sample's seconds, scaled up by cells for padded and by rows for padless",
    ]
    if network.bidirectional:
        lines.append(
            "bidirectional: a reversed padded grid starts in its padding, so padless is checked on each sequence alone"
        )
    if any(policy.batching.is_shared for policy in report.policies):
        lines.append(
            "binpack: padded batches have one line per sequence, since recurrent layers cannot share a line; "
            "the epoch is scaled up by rows"
        )
    return lines


def _note_on_other_load(busy: float | None) -> list[str]:
    """A note if threads compete with other processes for cores, so that wall time includes waiting."""
    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if busy is None or threads == 1 or round(busy) + threads <= cores:
        return []
    note = f"busy: {busy:.1f} processes competed for the {cores} cores before the measurement"
    return [f"{note}; --threads 1 counts CPU time, which they do not affect"]
