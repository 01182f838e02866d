"""Runs any cell over time, with a batch that shrinks as sequences end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from ..layout.rows import move_rows
from ..ops._kinds import as_packed
from ..packed import Packed

__all__ = ["scan"]

Batch = TypeVar("Batch", Packed, PackedSequence)
Cell = Callable[[Tensor, Any], tuple[Any, Any]]


def scan(cell: Any, packed: Batch, state: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    """Apply `cell` to every row of every sequence in time order; return all outputs and the final states.

    Args:
        cell: `cell(input_rows, state_rows) -> (output_rows, state_rows)`, called once per step on the n sequences that
            have that step, `(n, *)`; or a `torch.nn.LSTMCell`, `GRUCell` or `RNNCell`, whose output is h.
        packed: data `(N, *)`.
        state: initial states, a tensor `(B, *)` or a pytree of them, in the caller's order; a sequence of length 0
            keeps them.
        reverse: whether time runs from each sequence's last row to its first.

    Returns:
        The outputs, of the kind and layout of `packed` (a pytree of those if the cell returns a pytree), and the
        final states, like `state`.

    Raises:
        TypeError: `packed` is not a batch, or a state is not a tensor.
        ValueError: a state or output with a wrong number of rows, or a state of another structure.

    >>> def running_sum(x, total):
    ...     return total + x, total + x
    >>> output, total = scan(running_sum, Packed(torch.tensor([1, 2, 3, 4]), [3, 1]), torch.zeros(2, dtype=torch.int64))
    >>> output.data, total
    (tensor([1, 3, 6, 4]), tensor([6, 4]))
    """
    batch = as_packed(packed, "scan")
    layout, apply = batch._layout, _with_output(cell)
    leaves, structure = tree_flatten(state)
    for leaf in leaves:
        if not isinstance(leaf, Tensor):
            raise TypeError(f"scan: states must be tensors (B, *), got {type(leaf).__name__}")
        if leaf.dim() == 0 or len(leaf) != len(batch):
            raise ValueError(f"scan: states must have B = {len(batch)} rows, got shape {tuple(leaf.shape)}")
    order = layout.order.to(batch.device)
    initial = [leaf.index_select(0, order.to(leaf.device)) for leaf in leaves]
    rows, sizes = move_rows(batch.data, layout.time_major), layout.batch_sizes.tolist()
    slots = sizes[0] if sizes else 0
    current = [s[:0] for s in initial] if reverse else [s[:slots] for s in initial]
    ended: list[list[Tensor]] = []  # states of the shortest sequences first
    outputs: list[Any] = [None] * len(sizes)
    parts = rows.split(sizes) if sizes else ()
    for t in reversed(range(len(sizes))) if reverse else range(len(sizes)):
        size, running = sizes[t], len(current[0]) if current else sizes[t]
        if running > size:  # the shortest sequences have ended before this step
            ended.append([s[size:] for s in current])
            current = [s[:size] for s in current]
        elif running < size:  # in reverse, more sequences begin here
            current = [torch.cat([s, first[running:size]]) for s, first in zip(current, initial, strict=True)]
        outputs[t], current = _step(apply, parts[t], current, structure, size)
    if not sizes:  # call the cell once to learn what it returns
        outputs = [_step(apply, rows, current, structure, 0)[0]]
    finals = []
    for i in range(len(leaves)):
        pieces = [current[i], *(e[i] for e in reversed(ended)), initial[i][slots:]]
        finals.append(torch.cat(pieces).index_select(0, layout.slots.to(leaves[i].device)))
    back = layout.time_major.inverted()

    def joined(*steps: Tensor) -> Any:
        result = Packed._of(move_rows(torch.cat(steps), back), layout)
        return result.to_packed_sequence() if isinstance(packed, PackedSequence) else result

    return tree_map(joined, outputs[0], *outputs[1:]), tree_unflatten(finals, structure)


def _step(
    apply: Cell, rows: Tensor, state: list[Tensor], structure: Any, size: int
) -> tuple[Any, list[Tensor]]:
    output, new = apply(rows, tree_unflatten(state, structure))
    leaves, new_structure = tree_flatten(new)
    if new_structure != structure:
        raise ValueError("scan: the cell returned a state of another structure than the initial state")
    for kind, tensors in (("state", leaves), ("output", tree_flatten(output)[0])):
        for tensor in tensors:
            if not isinstance(tensor, Tensor) or tensor.dim() == 0 or len(tensor) != size:
                got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ValueError(f"scan: the cell's {kind} must have the step's {size} rows, got {got}")
    return output, leaves


def _with_output(cell: Any) -> Cell:
    """The cell with an output: torch's cells return only their state, whose h is the output."""
    if isinstance(cell, torch.nn.LSTMCell):

        def lstm(rows: Tensor, state: Any) -> tuple[Any, Any]:
            h, c = cell(rows, state)
            return h, (h, c)

        return lstm
    if isinstance(cell, (torch.nn.GRUCell, torch.nn.RNNCell)):

        def other(rows: Tensor, state: Any) -> tuple[Any, Any]:
            h = cell(rows, state)
            return h, h

        return other
    return cell
