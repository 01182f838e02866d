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
            LengthsError: its lengths cannot be determined, or contradict something else in it.
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
            if isinstance(self._way, (_Own, _Mask)):
                _check_other_names(batch, self._way.path, lengths)
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
    """Lengths that a name or the caller's function tells; a tensor is their grid if it fits them in every batch."""

    is_settled = True

    def __init__(self, how: str, name: str, numbers: Callable[[Any], list[int]]) -> None:
        self.how = how
        self.name = name  # of the lengths in errors
        self.numbers = numbers
        self.grids: list[_Grid] | None = None  # those possible so far; None before the first batch
        self.is_padded = False
        self.is_found = False  # then only shapes are looked at

    def read(self, batch: Any) -> tuple[list[int], int | None]:
        lengths = self.numbers(batch)
        if not lengths:
            return lengths, None
        grids = _grids(batch, lengths)
        if self.grids is not None:
            grids = {each: grids[each] for each in self.grids if each in grids}
        if not grids:
            _check_held(batch, lengths, self.name)
        if not self.is_found or len(_steps(grids)) > 1:
            grids = self._search(batch, grids, lengths)
        else:
            self.grids = list(grids)
        steps = _steps(grids)
        if len(steps) != 1:
            return lengths, None
        self.is_padded = True
        return lengths, steps.pop()

    def _search(self, batch: Any, grids: dict[_Grid, Tensor], lengths: list[int]) -> dict[_Grid, Tensor]:
        """The grid of this batch among those that fit, as far as it can be told; note what holds for later batches.

        One is enough, unless the rows evidently are elsewhere; where several differ, the padding tells.
        """
        time_last = {each: _is_time_last(tensor, lengths) for each, tensor in grids.items()}
        grids = {each: tensor for each, tensor in grids.items() if not time_last[each]}
        self.grids = list(grids)
        if len(_steps(grids)) > 1 or _is_flat_beside(batch, grids, lengths):
            grids = {each: tensor for each, tensor in grids.items() if each.is_proved(tensor, lengths)}
            self.grids = list(grids) or self.grids
        self.is_found = len(_steps(grids)) == 1 and None not in time_last.values()
        return grids


class _Pair:
    """Integers that may be lengths, and a tensor that may be their grid: a guess until a batch proves it."""

    is_padded = True

    def __init__(self, path: Path, grid: _Grid, *, is_proved: bool) -> None:
        self.path = path
        self.how = spelled(path)
        self.grid = grid
        self.is_settled = is_proved

    def read(self, batch: Any) -> tuple[list[int], int]:
        lengths, tensor = _numbers(batch, self.path), grid(at(batch, self.grid.path))
        if tensor is None:
            raise LengthsError(f"{spelled(self.grid.path)} is not a grid, as in the batches before")
        if not self.grid.fits(tensor, lengths):
            raise _misfit(self.how, lengths, self.grid, tensor)
        return lengths, tensor.shape[self.grid.axis]


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


def _steps(grids: dict[_Grid, Tensor]) -> set[int]:
    """T of each of these grids."""
    return {tensor.shape[each.axis] for each, tensor in grids.items()}


def _is_time_last(tensor: Tensor, lengths: list[int]) -> bool | None:
    """Whether this is a padded `(B, *, T)`, as convolutions take it; None if it may be, but without padding."""
    if tensor.dim() < 3 or tensor.shape[0] != len(lengths) or max(lengths) > tensor.shape[-1]:
        return False
    return _is_padding_behind(tensor.movedim(-1, 1), lengths)


def _is_flat_beside(batch: Any, grids: Iterable[_Grid], lengths: list[int]) -> bool:
    """Whether a tensor of the batch that is no grid has the rows of all sequences, back to back."""
    rows, paths = sum(lengths), {each.path for each in grids}
    return rows != len(lengths) and any(
        (_shape(leaf) or ())[:1] == (rows,) and path not in paths for path, leaf in leaves(batch)
    )


def _check_held(batch: Any, lengths: list[int], name: str) -> None:
    """Raise LengthsError if everything in the batch has a shape, and none of these shapes allows the lengths."""
    rows, longest, tensors = sum(lengths), max(lengths), []
    for path, leaf in leaves(batch):
        tensor = grid(leaf)
        if tensor is None:
            if not _is_one_each(leaf, len(lengths)):
                return  # the sequences may be in there
        elif (path and tensor.shape[0] == rows) or any(
            tensor.shape[1 - axis] == len(lengths) and max((tensor.shape[axis], *tensor.shape[2:])) >= longest
            for axis in (1, 0)
        ):
            return  # flat, which a tensor alone is not, or with the steps in another dimension
        else:
            tensors.append((path, tensor))
    is_list = len(tensors) % len(lengths) == 0 and all(  # one or more for each sequence
        any(length in tensor.shape for _, tensor in tensors) for length in lengths
    )
    if is_list or not tensors:
        return
    path, tensor = tensors[0]
    if any(other.shape[0] != tensor.shape[0] for _, other in tensors):
        raise LengthsError(f"none of its tensors has sequences of these lengths ({described(batch)})")
    axis = 0 if tensor.shape[0] != len(lengths) == tensor.shape[1] else 1
    raise _misfit(name, lengths, _Grid(path, axis), tensor)


def _misfit(name: str, lengths: list[int], each: _Grid, tensor: Tensor) -> LengthsError:
    count, steps = tensor.shape[1 - each.axis], tensor.shape[each.axis]
    if count != len(lengths):
        return LengthsError(
            f"{name} has {len(lengths)} lengths, but {spelled(each.path)} has {count} sequences "
            f"(shape {tuple(tensor.shape)})"
        )
    return LengthsError(f"{name} has a length of {max(lengths)}, but {spelled(each.path)} has {steps} steps")


def _check_other_names(batch: Any, path: Path, lengths: list[int]) -> None:
    """Raise LengthsError if other names beside `path` or around it tell other lengths of as many sequences."""
    for other, leaf in leaves(batch):
        if not other or other == path or path[: len(other) - 1] != other[:-1]:
            continue
        told = vector(leaf) if other[-1] == "lengths" else _mask_lengths(leaf, other)
        if told is None or len(told) != len(lengths) or told == lengths:
            continue
        i = next(i for i, (theirs, ours) in enumerate(zip(told, lengths, strict=True)) if theirs != ours)
        raise LengthsError(
            f"sequence {i} has {lengths[i]} rows in {spelled(path)}, but {told[i]} in {spelled(other)}; {_ADVICE}"
        )


def _mask_lengths(leaf: Any, path: Path) -> list[int] | None:
    """The lengths that a mask tells; None if this is none."""
    mask = grid(leaf) if path[-1] == "attention_mask" else None
    if mask is None or mask.dim() != 2 or not bool(((mask == 0) | (mask == 1)).all()):
        return None
    return (mask != 0).sum(1).tolist()


def _is_one_each(leaf: Any, count: int) -> bool:
    """Whether a leaf is a number, or one number for each of `count` sequences."""
    if isinstance(leaf, (list, tuple)):
        return len(leaf) == count
    return leaf is None or isinstance(leaf, (bool, int, float)) or _shape(leaf) in ((), (count,))


def _shape(leaf: Any) -> tuple[int, ...] | None:
    """The shape of a tensor or array; None of anything else, also of nested tensors."""
    is_array = isinstance(leaf, np.ndarray) or (isinstance(leaf, Tensor) and not leaf.is_nested)
    return tuple(leaf.shape) if is_array else None


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
