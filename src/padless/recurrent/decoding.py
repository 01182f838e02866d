"""Autoregressive decoding with a batch that shrinks as sequences end."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from numbers import Number
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from ..layout.layout import Layout
from ..options import whole
from ..packed import Packed
from ..packed.padding import held_number
from ._pairs import pair_of

__all__ = ["decode"]


def decode(
    step: Callable[[Tensor, Any], tuple[Tensor, Any]],
    start: Tensor,
    state: Any,
    *,
    stop: int | Callable[[Tensor], Tensor],
    max_length: int,
) -> Packed:
    """Generate B sequences row by row; sequences that have stopped are no longer computed.

    Args:
        step: `step(rows, state) -> (scores, state)`, called on the n sequences that continue. For tokens, `rows` is
            `(n,)` int64, and `scores` is `(n, V)`, whose argmax is the next token, or, if `step` samples, the next
            tokens themselves, `(n,)`. For other rows `scores` is the next rows, of the same form as `start`. Rows are
            converted to the dtype of `start` and copied, as `start` and `state` are, so `step` may work in place. The
            state that it returns is passed to the next call as it is, or the rows of the sequences that continue.
        start: `(B, *)`, the rows before the first; not part of the result.
        state: a tensor `(B, *)`, a `Packed` of B sequences (such as the outputs of an encoder) or a pytree of these.
        stop: the token that ends a sequence, or `stop(rows) -> (n,)` bool. The last row is part of the result.
            A number that no row can equal, such as infinity for tokens, ends none.
        max_length: maximum number of rows per sequence.

    Returns:
        The generated rows; sequence i has those after `start[i]`.

    Raises:
        TypeError: `start`, scores or a state are of another type, the rows are floating-point but `start` is whole, the
            scores have more tokens than the dtype of `start` can hold, rows do not fit into it, or `stop` is neither a
            token nor a function (only a function for rows of several numbers).
        ValueError: `max_length` is not a whole number of at least 0, a state with a wrong number of rows, or rows,
            scores or a mask of the wrong shape.

    >>> def count_up(tokens, state):
    ...     return tokens + 1, state
    >>> decode(count_up, torch.tensor([0, 3]), (), stop=4, max_length=10).unpack()
    [tensor([1, 2, 3, 4]), tensor([4])]
    """
    limit = whole("decode: max_length", max_length, 0)
    if not isinstance(start, Tensor) or start.dim() == 0:
        got = "a scalar" if isinstance(start, Tensor) else type(start).__name__
        raise TypeError(f"decode: start must be a tensor (B, *), got {got}")
    ends_at = _checked_stop(stop, start)
    _check_states(state, len(start))
    rows, state = start.clone(), tree_map(_copied, state, is_leaf=_is_packed)
    alive = torch.arange(len(start), device=start.device)
    generated, owners = [start[:0]], [alive[:0]]
    for _ in range(limit):
        if len(alive) == 0:
            break
        scores, state = pair_of(step(rows, state), "decode: step must return (scores, state)")
        _check_states(state, len(alive))
        rows = _next_rows(scores, rows)
        generated.append(rows.clone())  # `step` may change the rows that it is given
        owners.append(alive)
        ends = ends_at(rows)
        if not isinstance(ends, Tensor) or ends.shape != alive.shape or ends.dtype != torch.bool:
            raise ValueError(f"decode: stop must return a bool tensor (n,) = ({len(alive)},)")
        going = (~ends).nonzero().squeeze(1)  # synchronises: the next batch has that many rows
        if len(going) < len(alive):
            rows, alive = rows.index_select(0, going), alive.index_select(0, going)
            state = tree_map(lambda leaf, going=going: _selected(leaf, going), state, is_leaf=_is_packed)
    owner = torch.cat(owners)
    by_sequence = owner.argsort(stable=True)
    lengths = owner.cpu().bincount(minlength=len(start))
    return Packed._of(torch.cat(generated).index_select(0, by_sequence), Layout(lengths))


def _is_packed(value: Any) -> bool:
    return isinstance(value, Packed)


def _copied(leaf: Tensor | Packed) -> Tensor | Packed:
    return leaf.map(torch.clone) if isinstance(leaf, Packed) else leaf.clone()


def _selected(leaf: Tensor | Packed, sequences: Tensor) -> Tensor | Packed:
    return leaf[sequences] if isinstance(leaf, Packed) else leaf.index_select(0, sequences)


def _check_states(state: Any, count: int) -> None:
    for leaf in tree_leaves(state, is_leaf=_is_packed):
        if isinstance(leaf, Packed):
            if len(leaf) != count:
                raise ValueError(f"decode: states must have {count} sequences, got {leaf!r}")
            continue
        if not isinstance(leaf, Tensor) or leaf.is_nested:
            got = "a nested tensor" if isinstance(leaf, Tensor) else type(leaf).__name__
            raise TypeError(f"decode: states must be tensors (n, *) or Packed, got {got}")
        if leaf.dim() == 0 or len(leaf) != count:
            raise ValueError(f"decode: states must have {count} rows, got shape {tuple(leaf.shape)}")


def _checked_stop(stop: Any, start: Tensor) -> Callable[[Tensor], Any]:
    """The predicate that ends sequences; a token becomes one."""
    if callable(stop):
        return stop
    if not isinstance(stop, (Number, Tensor)) or (isinstance(stop, Tensor) and stop.dim() > 0):
        raise TypeError(
            f"decode: stop must be a token or a function, got {type(stop).__name__}; for several tokens use "
            "lambda rows: torch.isin(rows, tokens)"
        )
    if start.dim() > 1:
        raise TypeError(
            f"decode: stop must be a function for rows of several numbers, got {stop!r}; if none ends a sequence, use "
            "lambda rows: torch.zeros(len(rows), dtype=torch.bool)"
        )
    try:
        token = held_number("decode: stop", stop, start.dtype)
    except (RuntimeError, TypeError):  # equals no row, but torch would compare with what it wraps around to
        return lambda rows: torch.zeros_like(rows, dtype=torch.bool)
    return lambda rows: rows == token


def _next_rows(scores: Any, rows: Tensor) -> Tensor:
    """The rows that follow `rows`, a new tensor of the same form."""
    if not isinstance(scores, Tensor):
        raise TypeError(f"decode: step must return a tensor of rows or scores, got {type(scores).__name__}")
    if scores.shape == rows.shape:
        if not torch.can_cast(scores.dtype, rows.dtype):
            raise TypeError(
                f"decode: step returned rows of {scores.dtype}, which {rows.dtype}, the dtype of start, cannot hold"
            )
        return scores.clone() if scores.dtype == rows.dtype else _converted(scores, rows.dtype)
    if rows.dim() == 1 and not rows.is_floating_point() and scores.dim() == 2 and len(scores) == len(rows):
        if scores.shape[1] == 1 and not scores.is_floating_point():
            raise ValueError(
                f"decode: step returned {scores.dtype} {tuple(scores.shape)}, scores of one token; return sampled "
                f"tokens as ({len(rows)},), for example torch.multinomial(p, 1).squeeze(1)"
            )
        largest = inf if rows.is_complex() else 1 if rows.dtype == torch.bool else torch.iinfo(rows.dtype).max
        if scores.shape[1] - 1 > largest:
            raise TypeError(
                f"decode: step returned scores of {scores.shape[1]} tokens, more than {rows.dtype}, "
                "the dtype of start, can hold"
            )
        return scores.argmax(1).to(rows.dtype)
    raise ValueError(
        f"decode: step must return the next rows {tuple(rows.shape)}, or scores ({len(rows)}, V) for tokens, "
        f"got {tuple(scores.shape)}"
    )


def _converted(rows: Tensor, dtype: torch.dtype) -> Tensor:
    """The rows in `dtype`; raises TypeError if one does not fit: it would wrap around, or become infinite."""
    converted = rows.to(dtype)
    if dtype.is_floating_point or dtype.is_complex:
        fits = converted.isfinite() | ~rows.isfinite()
    else:
        fits = (converted.to(rows.dtype) == rows) & ((converted < 0) == (rows < 0))
    if not bool(fits.all()):  # synchronises, as finding the sequences that go on does
        first = rows[~fits][0].item()
        raise TypeError(f"decode: step returned {first}, which {dtype}, the dtype of start, cannot hold")
    return converted
