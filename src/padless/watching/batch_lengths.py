"""Finds the lengths in the batches of any loader by evidence, and raises if there is none.

Evidence is, in this order: a type that knows its lengths (`Packed`, `PackedSequence`, jagged tensors); a name
(`attention_mask`, `lengths`); integers beyond which a tensor of the same batch holds nothing but padding. Class
labels can look like lengths too, so the last kind is accepted only once a batch proves it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from ..errors import LengthsError
from ..lengths import host_lengths
from ..packed import Packed
from ..packed.packed_sequence import layout_of_packed_sequence
from ..report import BatchWaste
from .batch_leaves import Path, at, described, grid, leaves, spelled, vector

__all__ = ["BatchReader"]

_ADVICE = "pass lengths=, a function that returns the lengths of a batch"


class BatchReader:
    """Counts the batches of one loader; where the first batches have their lengths, later ones must too."""

    def __init__(self, lengths: Callable[[Any], Any] | None) -> None:
        self.batches = 0
        self._way: _Own | _Mask | _Numbers | None = None
        if lengths is not None:
            self._way = _Numbers("as given", lambda batch: host_lengths(lengths(batch)))

    @property
    def how(self) -> str:
        """Description of where the lengths are."""
        return self._way.how if self._way is not None else "not known yet"

    @property
    def is_padded(self) -> bool | None:
        """Whether batches are padded grids; None if no grid has been found."""
        return self._way.is_padded if self._way is not None else None

    def __call__(self, batch: Any) -> BatchWaste:
        """The numbers of one batch.

        Raises:
            LengthsError: its lengths cannot be determined.
        """
        try:
            if self._way is None or not self._way.is_settled:
                way = _way_of(batch)
                if self._way is not None and way.how != self._way.how:
                    raise LengthsError(
                        f"lengths seemed to be in {self._way.how}, but now in {way.how}; {_ADVICE}"
                    )
                self._way = way
            numbers = self._way.count(batch)
        except LengthsError as error:
            raise LengthsError(f"watch: batch {self.batches}: {error}") from None
        self.batches += 1
        return numbers


class _Own:
    """A leaf that knows its lengths."""

    is_padded, is_settled = False, True

    def __init__(self, path: Path, batch: Any) -> None:
        self.path = path
        self.how = f"{spelled(path)}, a {type(at(batch, path)).__name__}"

    def count(self, batch: Any) -> BatchWaste:
        lengths = _own_lengths(at(batch, self.path))
        if lengths is None:
            raise LengthsError(f"{spelled(self.path)} is not packed, as in the batches before")
        return _counted(lengths, max(lengths, default=0))


class _Mask:
    """A mask `(B, T)` that is 1 at real rows."""

    is_padded, is_settled = True, True

    def __init__(self, path: Path) -> None:
        self.path = path
        self.how = spelled(path)

    def count(self, batch: Any) -> BatchWaste:
        mask = grid(at(batch, self.path))
        if mask is None or mask.dim() != 2:
            raise LengthsError(f"{self.how} must be a mask (B, T); {_ADVICE}")
        real = mask != 0
        if mask.dtype != torch.bool and bool((mask[real] != 1).any()):
            raise LengthsError(f"{self.how} must hold 1 at real rows and 0 at padding; {_ADVICE}")
        return _counted(real.sum(1).tolist(), mask.shape[1])


class _Numbers:
    """Lengths as integers, and the grid that they belong to once it has been found."""

    def __init__(
        self,
        how: str,
        read: Callable[[Any], list[int]],
        *,
        grid: _Grid | None = None,
        needs_grid: bool = False,
    ) -> None:
        self.how = how
        self.read = read
        self.grid = grid
        self.is_looking = grid is None
        self.is_settled = not needs_grid or (grid is not None and bool(grid.is_proved))

    @property
    def is_padded(self) -> bool | None:
        return True if self.grid is not None else None

    def count(self, batch: Any) -> BatchWaste:
        lengths = self.read(batch)
        if self.is_looking:
            self._look(batch, lengths)
        longest = max(lengths, default=0)
        if self.grid is None:
            return _counted(lengths, longest)
        steps = at(batch, self.grid.path).shape[self.grid.axis]
        if longest > steps:
            raise LengthsError(
                f"{self.how} has a length of {longest}, but {spelled(self.grid.path)} has {steps} steps"
            )
        return _counted(lengths, steps)

    def _look(self, batch: Any, lengths: list[int]) -> None:
        """Use the grid that has these lengths; stop searching if some could have them but none has."""
        found = _grids(batch, lengths)
        self.grid = next((each for each in found if each.is_proved), None)
        self.is_looking = self.grid is None and all(each.is_proved is None for each in found)


class _Grid(NamedTuple):
    """A tensor of a batch that may be the grid of some lengths, judging by its shape."""

    path: Path
    axis: int  # of the steps: 1 or 0
    is_proved: bool | None  # whether all cells beyond the lengths are padding; None if there are none


def _way_of(batch: Any) -> _Own | _Mask | _Numbers:
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
    several = [path for path, _ in own] or masks or named or [path for path, _ in pairs]
    if not several:
        raise LengthsError(f"found no lengths in it ({described(batch)}); {_ADVICE}")
    if len(several) > 1:
        places = " or ".join(map(spelled, several))
        raise LengthsError(f"its lengths could be those of {places} ({described(batch)}); {_ADVICE}")
    path = several[0]
    if masks:
        return _Mask(path)
    if named:
        return _Numbers(spelled(path), lambda batch: _numbers(batch, path))
    return _Numbers(spelled(path), lambda batch: _numbers(batch, path), grid=pairs[0][1], needs_grid=True)


def _pairs(batch: Any, found: list[tuple[Path, Any]]) -> list[tuple[Path, _Grid]]:
    """Leaves of integers with a grid that may have these lengths; if some are proved, only those."""
    pairs = []
    for path, leaf in found:
        lengths = vector(leaf)
        if lengths is not None and min(lengths, default=0) >= 0:
            grids = [each for each in _grids(batch, lengths) if each.is_proved is not False]
            grids.sort(key=lambda each: not each.is_proved)
            pairs += [(path, each) for each in grids[:1]]
    return [pair for pair in pairs if pair[1].is_proved] or pairs


def _grids(batch: Any, lengths: list[int]) -> list[_Grid]:
    """The tensors of a batch whose shape allows sequences of these lengths."""
    found = []
    for path, leaf in leaves(batch):
        tensor = grid(leaf)
        if tensor is None:
            continue
        for axis in (1, 0):
            fits = tensor.shape[1 - axis] == len(lengths) and max(lengths, default=0) <= tensor.shape[axis]
            if fits:
                found.append(_Grid(path, axis, _is_padding_behind(tensor, lengths, axis)))
    return found


def _is_padding_behind(tensor: Tensor, lengths: list[int], axis: int) -> bool | None:
    """Whether all cells beyond the lengths are equal and those before differ; None if there are none beyond."""
    rows = (tensor if axis == 1 else tensor.transpose(0, 1)).detach()
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


def _counted(lengths: list[int], steps: int) -> BatchWaste:
    count = len(lengths)
    return BatchWaste(count, count - lengths.count(0), sum(lengths), count, steps)
