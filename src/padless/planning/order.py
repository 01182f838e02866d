"""The order of sequences, shuffled or longest first, with one block in memory at a time.

Uses integers only, and only the raw output of PCG64 seeded by SeedSequence, which NumPy promises never to change: an
order is the same on every machine and with every version.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .checks import Lengths, chunks

__all__ = ["Exchange", "Shuffle", "longest_first", "raw_bits", "shortest", "shuffled"]

Indices = NDArray[np.int64]
_AT_ONCE = 1 << 22  # up to this size a shuffle is computed in memory, 64 MB; beyond, block by block
_ROUNDS = 8
_PIECE = 1 << 14  # numbers that stay in the L2 cache over all rounds


def raw_bits(count: int, seed: int, *key: int) -> NDArray[np.uint64]:
    """`count` random 64-bit numbers from `seed` and `key`."""
    return np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)).random_raw(count)


def shuffled(count: int, seed: int, *key: int) -> Indices:
    """0 to `count` - 1 in random order: the ranks of random numbers, so every order is equally likely."""
    return raw_bits(count, seed, *key).argsort(kind="stable")


class Shuffle:
    """A random order of `count` numbers; any block can be computed without the others.

    Up to four million are shuffled at once. Beyond, position i holds the image of i under a keyed permutation: a
    Feistel network of eight rounds on pairs (i // width, i % width), whose few images outside the range are
    mapped again until they are inside.
    """

    def __init__(self, count: int, seed: int, *key: int) -> None:
        self.count = count
        self.order = shuffled(count, seed, *key) if count <= _AT_ONCE else None
        self.width = math.isqrt(max(count - 1, 0)) + 1  # width * width >= count
        self.height = -(-count // self.width)
        self.keys = raw_bits(2 * _ROUNDS, seed, *key).reshape(_ROUNDS, 2)

    def block(self, start: int, stop: int) -> Indices:
        """`(stop - start,)` the numbers at positions `start` to `stop`."""
        if self.order is not None:
            return self.order[start:stop]
        block = np.arange(start, stop, dtype=np.uint64)
        for first in range(0, len(block), _PIECE):
            piece = block[first : first + _PIECE]
            self._permute(piece)
            while (outside := np.flatnonzero(piece >= self.count)).size:
                again = piece[outside]
                self._permute(again)
                piece[outside] = again
        return block.astype(np.int64)

    def _permute(self, numbers: NDArray[np.uint64]) -> None:
        """Replace numbers below `height * width` by their images, in place."""
        height, width = np.uint64(self.height), np.uint64(self.width)
        left, right = np.divmod(numbers, width)
        for number, key in enumerate(self.keys):
            if number % 2 == 0:
                _add_hash(left, right, key, height)
            else:
                _add_hash(right, left, key, width)
        np.multiply(left, width, out=numbers)
        numbers += right


def _add_hash(half: Any, other: Any, key: NDArray[np.uint64], size: np.uint64) -> None:
    """`half` plus a number below `size` that depends on `other`, modulo `size`, in place.

    For halves below 2**32; the constants are those of the finaliser of the splitmix64 generator.
    """
    mixed = other + key[0]
    mixed ^= mixed >> np.uint64(30)
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    mixed ^= mixed >> np.uint64(27)
    mixed *= key[1] | np.uint64(1)
    mixed >>= np.uint64(32)
    mixed *= size
    mixed >>= np.uint64(32)
    half += mixed
    half -= size * (half >= size)


def longest_first(lengths: Lengths, block: int) -> Iterator[Indices]:
    """All indices, longest first, ties in their order, in blocks of up to `block` or as many as share a length.

    Takes one pass over the lengths per block; they may be a memory map.
    """
    shift = max(lengths.longest.bit_length() - 16, 0)
    # A histogram: bucket b has the lengths from b << shift to below (b + 1) << shift.
    counts = np.zeros((lengths.longest >> shift) + 1, np.int64)
    for _, chunk in chunks(lengths.values):
        counts += np.bincount((chunk >> shift).astype(np.int64), minlength=len(counts))
    held, high = 0, len(counts)
    for bucket in np.flatnonzero(counts)[::-1].tolist():
        if held and held + counts[bucket] > block:
            yield _between(lengths, (bucket + 1) << shift, high << shift)
            held, high = 0, bucket + 1
        held += int(counts[bucket])
    yield _between(lengths, 0, high << shift)


def _between(lengths: Lengths, low: int, high: int) -> Indices:
    """The indices of lengths from `low` to below `high`, longest first."""
    found = [
        start + np.flatnonzero((chunk >= low) & (chunk < high)) for start, chunk in chunks(lengths.values)
    ]
    indices = np.concatenate(found)
    return indices[(-lengths.values[indices].astype(np.int64)).argsort(kind="stable")]


def shortest(lengths: Lengths, count: int) -> Indices:
    """The indices of the `count` shortest sequences, shortest first, ties in their order."""
    held = np.zeros(0, np.int64)
    for start, chunk in chunks(lengths.values):
        held = np.append(held, start + chunk.argsort(kind="stable")[:count])
        held = held[lengths.values[held].argsort(kind="stable")[:count]]
    return held


class Exchange:
    """Exchanges the `needed` sequences that a block lacks for as many others of that block, in every block."""

    def __init__(self, block: Indices, needed: Indices) -> None:
        missing = needed[~np.isin(needed, block)]
        spare = block[~np.isin(block, needed)][: len(missing)]
        old, new = np.append(missing, spare), np.append(spare, missing)
        order = old.argsort()
        self.old, self.new = old[order], new[order]

    def __call__(self, block: Indices) -> Indices:
        """`block` after the exchange, as a copy if it changes."""
        if not len(self.old):
            return block
        place = self.old.searchsorted(block).clip(max=len(self.old) - 1)
        return np.where(self.old[place] == block, self.new[place], block)
