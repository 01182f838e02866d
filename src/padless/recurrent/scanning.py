"""Runs any cell over time, with a batch that shrinks as sequences end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

from ..layout.rows import move_rows
from ..ops._kinds import Batch, as_packed, of_kind
from ..packed import Packed
from ._pairs import pair_of

__all__ = ["scan"]

Cell = Callable[[Tensor, Any], tuple[Any, Any]]


def scan(cell: Any, packed: Batch, state: Any, *, reverse: bool = False) -> tuple[Any, Any]:
    """Apply `cell` to every row of every sequence in time order; return all outputs and the final states.

    Args:
        cell: `cell(input_rows, state_rows) -> (output_rows, state_rows)`, called once per step on the n sequences that
            have that step, `(n, *)`; or a `torch.nn.LSTMCell`, `GRUCell` or `RNNCell`, whose output is h. It may
            change the state in place, but not an output that it has returned.
        packed: data `(N, *)`.
        state: initial states, a tensor `(B, *)` or a pytree of them, in the caller's order; a sequence of length 0
            keeps them.
        reverse: whether time runs from each sequence's last row to its first.

    Returns:
        The outputs, of the kind and layout of `packed` (a pytree of those if the cell returns a pytree), and the
        final states, like `state`.

    Raises:
        TypeError: `packed` is not a batch, a state is not a tensor, or the cell does not return two values.
        ValueError: a state or output with a wrong number of rows, a state of another structure, or an output that the
            cell changed at the next step.

    >>> def running_sum(x, total):
    ...     return total + x, total + x
    >>> output, total = scan(running_sum, Packed(torch.tensor([1, 2, 3, 4]), [3, 1]), torch.zeros(2, dtype=torch.int64))
    >>> output.data, total
    (tensor([1, 3, 6, 4]), tensor([6, 4]))
    """
    batch = as_packed(packed, "scan")
    layout, apply = batch._layout, _with_output(cell)
    _check_states(state, len(batch))
    leaves, structure = tree_flatten(state)
    order = layout.order.to(batch.device)
    initial = [leaf.index_select(0, order.to(leaf.device)) for leaf in leaves]
    rows, sizes = move_rows(batch.data, layout.time_major), layout.batch_sizes.tolist()
    slots = sizes[0] if sizes else 0
    states = _States(initial, running=0 if reverse else slots)
    outputs: list[Any] = [None] * len(sizes)
    before: _Versions | None = None
    parts = rows.split(sizes) if sizes else ()
    for t in reversed(range(len(sizes))) if reverse else range(len(sizes)):
        states.resize(sizes[t])
        outputs[t], states.current = _step(apply, parts[t], states.current, structure, sizes[t])
        if before is not None and before.have_changed():
            raise ValueError(
                "scan: the cell changed in place what it had returned as the output of the step before; "
                "return a copy, output.clone()"
            )
        before = _Versions(tree_flatten(outputs[t])[0])
    if not sizes:  # call the cell once to learn what it returns
        outputs = [_step(apply, rows, states.current, structure, 0)[0]]
    finals = [final.index_select(0, layout.slots.to(final.device)) for final in states.finals(slots)]
    back = layout.time_major.inverted()

    def joined(*steps: Tensor) -> Any:
        return of_kind(Packed._of(move_rows(torch.cat(steps), back), layout), packed)

    return tree_map(joined, outputs[0], *outputs[1:]), tree_unflatten(finals, structure)


class _Versions:
    """Whether tensors are changed in place, which torch counts except under tracing and in inference mode."""

    def __init__(self, tensors: list[Any]) -> None:
        self.are_counted = not (torch.compiler.is_compiling() or any(t.is_inference() for t in tensors))
        self.tensors = tensors if self.are_counted else []
        self.versions = [t._version for t in self.tensors]

    def have_changed(self) -> bool:
        return [t._version for t in self.tensors] != self.versions


class _States:
    """The states of the sequences that run at a step, always the first slots, and of those that have ended."""

    def __init__(self, initial: list[Tensor], running: int) -> None:
        self.initial = initial
        self.running = running
        self.current = [state[:running] for state in initial]
        self.ended: list[list[Tensor]] = []  # the shortest sequences first

    def resize(self, size: int) -> None:
        """Keep the first `size` sequences, or let more of them begin with their initial states."""
        if size < self.running:
            self.ended.append([state[size:] for state in self.current])
            self.current = [state[:size] for state in self.current]
        elif size > self.running:
            beginning = [state[self.running : size] for state in self.initial]
            self.current = [torch.cat(both) for both in zip(self.current, beginning, strict=True)]
        self.running = size

    def finals(self, slots: int) -> list[Tensor]:
        """The last state of every slot; beyond the first `slots` are sequences of length 0, which keep the initial."""
        never_run = [state[slots:] for state in self.initial]
        return [
            torch.cat(parts) for parts in zip(self.current, *reversed(self.ended), never_run, strict=True)
        ]


def _check_states(states: Any, count: int) -> None:
    for state in tree_leaves(states, is_leaf=lambda value: isinstance(value, Packed)):
        if not isinstance(state, Tensor) or state.is_nested:
            got = "a nested tensor" if isinstance(state, Tensor) else type(state).__name__
            raise TypeError(f"scan: states must be tensors (B, *), got {got}")
        if state.dim() == 0 or len(state) != count:
            raise ValueError(f"scan: states must have B = {count} rows, got shape {tuple(state.shape)}")


def _step(
    apply: Cell, rows: Tensor, state: list[Tensor], structure: Any, size: int
) -> tuple[Any, list[Tensor]]:
    before = _Versions(state)
    returned = apply(rows, tree_unflatten(state, structure))
    hint = (
        "; for a cell that returns h, use lambda x, h: (cell(x, h),) * 2"
        if isinstance(returned, Tensor)
        else ""
    )
    output, new = pair_of(returned, "scan: the cell must return (output, state)", hint)
    leaves, new_structure = tree_flatten(new)
    if new_structure != structure:
        raise ValueError("scan: the cell returned a state of another structure than the initial state")
    for kind, tensors in (("state", leaves), ("output", tree_flatten(output)[0])):
        for tensor in tensors:
            if not isinstance(tensor, Tensor) or tensor.dim() == 0 or len(tensor) != size:
                got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
                raise ValueError(f"scan: the cell's {kind} must have the step's {size} rows, got {got}")
    if not before.are_counted or before.have_changed():  # the output may share the memory of the state
        output = tree_map(torch.clone, output)
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
