"""Linear-chain conditional random field over the tags of every sequence."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import ops
from ..ops._kinds import as_packed, of_kind, rows_in_order_of, with_rows
from ..options import whole
from ..packed import Packed
from ..recurrent.scanning import scan

__all__ = ["CRF"]


class CRF(torch.nn.Module):
    """Linear-chain conditional random field: scores of tags, tag transitions, and first and last tags.

    Source: Lafferty, McCallum and Pereira, "Conditional Random Fields", 2001; forward algorithm and Viterbi decoding.

    Args:
        tags: number of tags, C.

    Attributes:
        transitions: `(C, C)` score of tag j after tag i.
        start, end: `(C,)` scores of a tag as first and as last tag. A score of -inf forbids what it belongs to.

    >>> crf = CRF(3)
    >>> emissions, tags = Packed(torch.randn(4, 3), [3, 1]), Packed(torch.tensor([0, 2, 1, 1]), [3, 1])
    >>> loss = -crf(emissions, tags).mean()
    >>> crf.decode(emissions).lengths
    tensor([3, 1])
    """

    def __init__(self, tags: int, *, device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        self.tags = tags = whole("CRF: tags", tags, 1)
        self.transitions = torch.nn.Parameter(torch.empty(tags, tags, device=device, dtype=dtype))
        self.start = torch.nn.Parameter(torch.empty(tags, device=device, dtype=dtype))
        self.end = torch.nn.Parameter(torch.empty(tags, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw all scores uniformly from -0.1 to 0.1."""
        for scores in self.parameters():
            torch.nn.init.uniform_(scores, -0.1, 0.1)

    def forward(self, emissions: Any, targets: Any) -> Tensor:
        """Log-likelihood of the target tags of every sequence, `(B,)`; 0 for length 0.

        Args:
            emissions: `Packed` or `PackedSequence`, data `(N, C)`: the score of each tag at each row.
            targets: tags `(N,)`, int64, of the same layout, in a batch of either kind.

        Raises:
            LengthsError: emissions and targets have different lengths.
            ValueError: emissions of the wrong width, or tags outside 0..C-1; the message names the first.
        """
        scores, tags = self._checked(emissions), as_packed(targets, "CRF")
        now = rows_in_order_of(scores, tags, "CRF", ("emissions", "targets"))
        self._check_tags(targets.data)
        before = ops.shift(tags, 1).data
        is_first = ops.shift(tags.map(torch.ones_like), 1).data == 0
        of_row = scores.data.gather(1, now[:, None]).squeeze(1)
        of_row = of_row + torch.where(is_first, self.start[now], self.transitions[before, now])
        last = self.end[ops.last(tags, default=0)].where(self._has_rows(scores), 0)
        return ops.sum(with_rows(scores, of_row)) + last - self._log_partition(scores)

    def decode(self, emissions: Any) -> Any:
        """The most likely tags of every sequence: int64 `(N,)`, of the kind and layout of `emissions` (Viterbi).

        Raises:
            ValueError: emissions of the wrong width.
        """
        scores = self._checked(emissions)
        best, later = self._first_and_later(scores.detach())
        transitions = self.transitions.detach()

        def forward(row: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
            values, tags = (best[:, :, None] + transitions).max(1)
            return tags, values + row

        def back(row: Tensor, tag: Tensor) -> tuple[Tensor, Tensor]:
            before = row.gather(1, tag[:, None]).squeeze(1)
            return before, before

        pointers, best = scan(forward, later, best)
        last = (best + self.end.detach()).argmax(1)
        before, _ = scan(back, pointers, last, reverse=True)
        lengths = scores._layout.lengths.clamp(max=1)
        return of_kind(ops.cat([before, Packed(last[self._has_rows(scores)], lengths)]), emissions)

    def marginals(self, emissions: Any) -> Any:
        """The probability of every tag at every row: `(N, C)`, of the kind and layout of `emissions`; differentiable.

        Raises:
            ValueError: emissions of the wrong width.
        """
        scores = self._checked(emissions)
        create_graph = torch.is_grad_enabled()
        with torch.inference_mode(False), torch.enable_grad():
            data = scores.data.clone() if scores.data.is_inference() else scores.data
            data = data if data.requires_grad else data.detach().requires_grad_()
            total = self._log_partition(with_rows(scores, data)).sum()
            # The derivative of the log-partition with respect to a score is the probability of its tag.
            (rows,) = torch.autograd.grad(total, data, create_graph=create_graph)
        return of_kind(with_rows(scores, rows), emissions)

    def _log_partition(self, scores: Packed) -> Tensor:
        """Logarithm of the sum over all taggings of every sequence, `(B,)`; 0 for length 0."""
        alpha, later = self._first_and_later(scores)
        # torch.logsumexp is up to twice as fast, but has NaN gradients at -inf.
        all_scores = (self.transitions, self.start, self.end, scores.data)
        forbids = torch.stack([each.isneginf().any() for each in all_scores]).any()
        # Synchronises, once, if the scores are on a device.
        logsumexp = _logsumexp if bool(forbids) else torch.logsumexp

        def cell(row: Tensor, alpha: Tensor) -> tuple[tuple[()], Tensor]:
            return (), logsumexp(alpha[:, :, None] + self.transitions, 1) + row

        _, alpha = scan(cell, later, alpha)
        return logsumexp(alpha + self.end, 1).where(self._has_rows(scores), 0)

    def _first_and_later(self, scores: Packed) -> tuple[Tensor, Packed]:
        """The scores of the first rows plus `start`, and the other rows."""
        _, later = ops.split(scores, [1, scores._layout.steps])
        return ops.first(scores, default=0) + self.start, later

    def _has_rows(self, scores: Packed) -> Tensor:
        return (scores._layout.lengths > 0).to(scores.device)

    def _checked(self, emissions: Any) -> Packed:
        scores = as_packed(emissions, "CRF")
        if scores.data.dim() != 2 or scores.data.shape[1] != self.tags:
            raise ValueError(f"CRF takes emissions (N, {self.tags}), got {tuple(scores.data.shape)}")
        return scores

    def _check_tags(self, tags: Tensor) -> None:
        if tags.dtype != torch.int64 or tags.dim() != 1:
            raise ValueError(f"CRF: targets must be int64 (N,), got {tags.dtype} {tuple(tags.shape)}")
        is_wrong = (tags < 0) | (tags >= self.tags)
        if bool(is_wrong.any()):  # synchronises if the tags are on a device
            i = int(is_wrong.nonzero()[0, 0])
            raise ValueError(
                f"CRF: targets.data[{i}] = {int(tags[i])} is not a tag from 0 to {self.tags - 1}"
            )

    def extra_repr(self) -> str:
        """The arguments that `repr` shows."""
        return f"tags={self.tags}"


def _logsumexp(scores: Tensor, dim: int) -> Tensor:
    """`torch.logsumexp`, whose gradient is 0 instead of NaN where all scores are -inf: no tag leads there."""
    largest = scores.detach().amax(dim, keepdim=True)
    largest = largest.masked_fill(largest.isinf(), 0)
    sums = (scores - largest).exp().sum(dim)
    is_impossible = sums == 0
    logs = sums.masked_fill(is_impossible, 1).log() + largest.squeeze(dim)
    return logs.masked_fill(is_impossible, -torch.inf)
