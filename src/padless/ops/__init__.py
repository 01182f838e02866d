"""Operations on each sequence of a batch, without padding and without a loop over sequences.

Every function accepts a `Packed` or a `PackedSequence`, on any device, and is twice differentiable. bfloat16 and
float16 are summed in float32. NaN and infinity in one sequence never affect another.
"""

from .along import cumsum, log_softmax, softmax
from .move import cat, chunks, cut, expand, first, head, last, reverse, roll, shift, split, tail
from .reduce import logsumexp, max, mean, min, prod, sum  # noqa: A004 - named as in torch

__all__ = [
    "cat", "chunks", "cumsum", "cut", "expand", "first", "head", "last", "log_softmax", "logsumexp", "max", "mean",
    "min", "prod", "reverse", "roll", "shift", "softmax", "split", "sum", "tail",
]  # fmt: skip
