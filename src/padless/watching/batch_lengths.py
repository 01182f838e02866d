"""Finds the lengths in the batches of any loader by evidence, and raises if there is none.

Evidence is, in this order: a type that knows its lengths (`Packed`, `PackedSequence`, jagged tensors); a name
(`attention_mask`, `lengths`); integers beyond which a tensor of the same batch holds nothing but padding. Class
labels can look like lengths too, so the last kind is accepted only once a batch proves it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import LengthsError
from ..lengths import host_lengths
from ..packed import Packed
from ..packed.packed_sequence import layout_of_packed_sequence
from ..planning.checks import MOST_ROWS
from ..report import BatchWaste
from .batch_leaves import Path, at, described, grid, leaves, spelled, vector

__all__ = ["BatchReader"]

_ADVICE = "pass lengths=, a function that returns the lengths of a batch"


class BatchReader:
    """Counts the batches of one loader; where the first batches have their lengths, later ones must too."""

    def __init__(self, lengths: Callable[[Any], Any] | None) -> None:
        self.batches = 0
        self._way: _Own | _Mask | _Numbers | _Pair | None = None  # None before the first batch
        if lengths is not None:
            self._way = _Numbers("as given", "lengths", lambda batch: host_lengths(lengths(batch)))

    @property
    def how(self) -> str:
        """Description of where the lengths are."""
        return self._way.how if self._way is not None else "not known yet"

    @property
    def is_padded(self) -> bool:
        """Whether batches are padded grids, as far as known."""
        return self._way is not None and self._way.is_padded

    def __call__(self, batch: Any) -> BatchWaste:
        """The numbers of one batch.

        Raises:
            LengthsError: its lengths cannot be determined, or no longer fit their grid.
        """
        try:
            if self._way is None or not self._way.is_settled:
                way = _way_of(batch)
                if self._way is not None and way.how != self._way.how:
                    raise LengthsError(
                        f"lengths seemed to be in {self._way.how}, but now in {way.how}; {_ADVICE}"
                    )
                self._way = way
            lengths, steps = self._way.read(batch)
            if sum(lengths) > MOST_ROWS:
                raise LengthsError(f"a length of {max(lengths)} is too large: the sum overflows")
        except LengthsError as error:
            raise LengthsError(f"watch: batch {self.batches}: {error}") from None
        self.batches += 1
        count = len(lengths)
        return BatchWaste(
            sequences=count,
            nonempty=count - lengths.count(0),
            rows=sum(lengths),
            lines=count,
            steps=max(lengths, default=0) if steps is None else steps,
        )


class _Own:
    """A leaf that knows its lengths."""

    is_padded, is_settled = False, True

    def __init__(self, path: Path, batch: Any) -> None:
        self.path = path
        self.how = f"{spelled(path)}, a {type(at(batch, path)).__name__}"

    def read(self, batch: Any) -> tuple[list[int], None]:
        lengths = _own_lengths(at(batch, self.path))
        if lengths is None:
            raise LengthsError(f"{spelled(self.path)} is not packed, as in the batches before")
        return lengths, None


class _Mask:
    """A mask `(B, T)` that is 1 at real rows."""

    is_padded, is_settled = True, True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.how = spelled(path)

    def read(self, batch: Any) -> tuple[list[int], int]:
        mask = grid(at(batch, self.path))
        if mask is None or mask.dim() != 2:
            raise LengthsError(f"{self.how} must be a mask (B, T); {_ADVICE}")
        real = mask != 0
        if mask.dtype != torch.bool and bool((real & (mask != 1)).any()):
            raise LengthsError(f"{self.how} must hold 1 at real rows and 0 at padding; {_ADVICE}")
        return real.sum(1).tolist(), mask.shape[1]


class _Numbers:
    """Lengths that a name or the caller's function tells, and the grid that they belong to once it has been found."""

    is_settled = True

    def __init__(self, how: str, name: str, numbers: Callable[[Any], list[int]]) -> None:
        self.how = how
        self.name = name  # of the lengths in errors
        self.numbers = numbers
        self.grid: _Grid | None = None
        self.is_looking = True

    @property
    def is_padded(self) -> bool:
        return self.grid is not None

    def read(self, batch: Any) -> tuple[list[int], int | None]:
        lengths = self.numbers(batch)
        if self.is_looking and lengths:
            self._look(batch, lengths)
        return lengths, None if self.grid is None else _steps(batch, self.grid, lengths, self.name)

    def _look(self, batch: Any, lengths: list[int]) -> None:
        """Use the grid of these lengths; stop looking if there is one, or tensors that could be it but are not."""
        found = {each: each.is_proved(tensor, lengths) for each, tensor in _grids(batch, lengths).items()}
        self.grid = next((each for each, proof in found.items() if proof), None)
        if self.grid is None and None not in found.values():
            self.grid = _grid_of_ids(batch, found, len(lengths))
        self.is_looking = self.grid is None and all(proof is None for proof in found.values())


class _Pair:
    """Integers that may be lengths, and a tensor that may be their grid: a guess until a batch proves it."""

    is_padded = True

    def __init__(self, path: Path, grid: _Grid, *, is_proved: bool) -> None:
        self.path = path
        self.how = spelled(path)
        self.grid = grid
        self.is_settled = is_proved

    def read(self, batch: Any) -> tuple[list[int], int]:
        lengths = _numbers(batch, self.path)
        return lengths, _steps(batch, self.grid, lengths, self.how)


class _Grid(NamedTuple):
    """A tensor `(B, T, *)` or `(T, B, *)`, judging by its shape."""

    path: Path
    axis: int  # of the steps: 1 or 0

    def fits(self, tensor: Tensor, lengths: list[int]) -> bool:
        """Whether the shape allows sequences of these lengths."""
        return (
            tensor.shape[1 - self.axis] == len(lengths) and max(lengths, default=0) <= tensor.shape[self.axis]
        )

    def is_proved(self, tensor: Tensor, lengths: list[int]) -> bool | None:
        """Whether all cells beyond the lengths are padding; None if there are none."""
        return _is_padding_behind(tensor if self.axis == 1 else tensor.transpose(0, 1), lengths)


def _way_of(batch: Any) -> _Own | _Mask | _Numbers | _Pair:
    """How to find the lengths of this batch.

    Raises:
        LengthsError: there is no way, or more than one.
    """
    found = list(leaves(batch))
    own = [(path, lengths) for path, leaf in found if (lengths := _own_lengths(leaf)) is not None]
    if own and all(lengths == own[0][1] for _, lengths in own):
        return _Own(own[0][0], batch)
    masks = [path for path, _ in found if path and path[-1] == "attention_mask"]
    named = [path for path, leaf in found if path and path[-1] == "lengths" and vector(leaf) is not None]
    pairs = _pairs(batch, found) if not (own or masks or named) else []
    several = [path for path, _ in own] or masks or named or [pair.path for pair in pairs]
    strided = [path for path, leaf in found if isinstance(leaf, Tensor) and leaf.is_nested]
    if strided and not several:
        raise LengthsError(
            f"{spelled(strided[0])} is a nested tensor of layout torch.strided, which does not tell its lengths: "
            f"use layout=torch.jagged, or {_ADVICE}"
        )
    if not several:
        raise LengthsError(f"found no lengths in it ({described(batch)}); {_ADVICE}")
    if len(several) > 1:
        places = " or ".join(map(spelled, several))
        raise LengthsError(f"its lengths could be those of {places} ({described(batch)}); {_ADVICE}")
    path = several[0]
    if masks:
        return _Mask(path)
    if named:
        return _Numbers(spelled(path), spelled(path), lambda batch: _numbers(batch, path))
    return pairs[0]


def _pairs(batch: Any, found: list[tuple[Path, Any]]) -> list[_Pair]:
    """Leaves of integers with a grid that may have these lengths; if some are proved, only those."""
    pairs = []
    for path, leaf in found:
        lengths = vector(leaf)
        if lengths is not None and min(lengths, default=0) >= 0:
            proofs = [
                (each, each.is_proved(tensor, lengths)) for each, tensor in _grids(batch, lengths).items()
            ]
            possible = [
                _Pair(path, each, is_proved=bool(proof)) for each, proof in proofs if proof is not False
            ]
            possible.sort(key=lambda pair: not pair.is_settled)
            pairs += possible[:1]
    return [pair for pair in pairs if pair.is_settled] or pairs


def _grids(batch: Any, lengths: list[int]) -> dict[_Grid, Tensor]:
    """The tensors of a batch whose shape allows sequences of these lengths."""
    tensors = [(path, tensor) for path, leaf in leaves(batch) if (tensor := grid(leaf)) is not None]
    return {
        each: tensor
        for path, tensor in tensors
        for each in (_Grid(path, 1), _Grid(path, 0))
        if each.fits(tensor, lengths)
    }


def _grid_of_ids(batch: Any, candidates: Iterable[_Grid], count: int) -> _Grid | None:
    """The candidate that is a tensor of ids `(B, T)`, if the sequences can be nowhere else in the batch.

    Ids beyond the lengths may differ, or be the same as the last one before them, so that padding proves nothing.
    """
    ids = {each: tensor for each in candidates if _are_ids(tensor := at(batch, each.path))}
    paths, steps = {each.path for each in ids}, {tensor.shape[each.axis] for each, tensor in ids.items()}
    is_alone = all(path in paths or _is_one_each(leaf, count) for path, leaf in leaves(batch))
    return next(iter(ids)) if len(steps) == 1 and is_alone else None


def _are_ids(value: Any) -> bool:
    """Whether a tensor or array holds whole numbers `(B, T)`."""
    tensor = grid(value)
    if tensor is None or tensor.dim() != 2:
        return False
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _is_one_each(leaf: Any, count: int) -> bool:
    """Whether a leaf is a number or text, or one number for each of `count` sequences."""
    if isinstance(leaf, (list, tuple)):
        return len(leaf) == count
    if isinstance(leaf, np.ndarray) or (isinstance(leaf, Tensor) and not leaf.is_nested):
        return tuple(leaf.shape) in ((), (count,))
    return leaf is None or isinstance(leaf, (bool, int, float, str, bytes))


def _steps(batch: Any, each: _Grid, lengths: list[int], name: str) -> int:
    """T of the grid of these lengths, which it had in an earlier batch, or has in this one."""
    tensor = grid(at(batch, each.path))
    if tensor is None:
        raise LengthsError(f"{spelled(each.path)} is not a grid, as in the batches before")
    count, steps = tensor.shape[1 - each.axis], tensor.shape[each.axis]
    if count != len(lengths):
        raise LengthsError(
            f"{name} has {len(lengths)} lengths, but {spelled(each.path)} has {count} sequences"
        )
    if max(lengths, default=0) > steps:
        raise LengthsError(
            f"{name} has a length of {max(lengths)}, but {spelled(each.path)} has {steps} steps"
        )
    return steps


def _is_padding_behind(tensor: Tensor, lengths: list[int]) -> bool | None:
    """Whether all cells of `(B, T, *)` beyond the lengths are equal and those before differ; None if there are none."""
    rows = tensor.detach()
    real = (
        torch.arange(rows.shape[1], device=rows.device) < torch.tensor(lengths, device=rows.device)[:, None]
    )
    if bool(real.all()):
        return None
    padding = rows[~real].flatten(1) if rows.dim() > 2 else rows[~real][:, None]
    if not torch.equal(padding, padding[:1].expand_as(padding)):
        return False
    # Labels larger than the true lengths also end inside the padding, but not right before it.
    ends = [(b, length - 1) for b, length in enumerate(lengths) if length]
    last = torch.stack([rows[end] for end in ends]).reshape(len(ends), -1) if ends else padding[:0]
    return bool((last != padding[:1]).any(1).all())


def _own_lengths(leaf: Any) -> list[int] | None:
    if isinstance(leaf, PackedSequence):
        return layout_of_packed_sequence(leaf).lengths.tolist()
    if isinstance(leaf, Tensor) and leaf.is_nested and leaf.layout == torch.jagged:
        leaf = Packed.from_nested(leaf)
    return leaf._layout.lengths.tolist() if isinstance(leaf, Packed) else None


def _numbers(batch: Any, path: Path) -> list[int]:
    numbers = vector(at(batch, path))
    if numbers is None:
        raise LengthsError(f"{spelled(path)} is not whole numbers (B,), as in the batches before; {_ADVICE}")
    return host_lengths(numbers, name=spelled(path))
