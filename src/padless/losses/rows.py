"""Losses of rows, with means over rows or sequences that are not ignored; named as in torch.nn.functional."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from ..errors import LayoutError, LengthsError
from ..ops import sum as sequence_sums
from ..ops._kinds import Batch, as_packed, rows_in_order_of, with_rows
from ..ops._sums import wide
from ..packed import Packed

__all__ = ["binary_cross_entropy_with_logits", "cross_entropy", "ctc_loss", "mse_loss", "nll_loss"]

Reduction = Literal["mean", "sum", "none", "sequence_mean"]
_REDUCTIONS = ("mean", "sum", "none", "sequence_mean")


def cross_entropy(
    logits: Batch,
    targets: Batch,
    *,
    reduction: Reduction = "mean",
    weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> Tensor | Batch:
    """Cross entropy of all rows, reduced: `torch.nn.functional.cross_entropy` of the rows.

    Args:
        logits: data `(N, C)` or `(N, C, *)`.
        targets: of the same kind and layout: classes `(N, *)`, int64 or uint8, or probabilities of the logits' shape.
        reduction: "mean": over all rows that are not ignored, weighted as in torch. "sequence_mean": the mean of each
            sequence's own mean, over sequences with such rows. Both are NaN if there are none, as in torch. "sum".
            "none": a batch of the logits' kind.
        weight: `(C,)` weights of the classes.
        label_smoothing: from 0 to 1.
        ignore_index: rows of this class are ignored.

    Raises:
        TypeError: not two batches of one kind.
        LengthsError: batches of different lengths.
        ValueError: an unknown reduction, or logits without classes, `(N,)`.

    >>> logits, targets = Packed(torch.zeros(4, 2), [3, 1]), Packed(torch.tensor([0, 1, -100, 1]), [3, 1])
    >>> cross_entropy(logits, targets)
    tensor(0.6931)
    """
    data, wanted = _rows_of_both("cross_entropy", reduction, logits, targets)
    wanted = _checked_classes("cross_entropy: logits", data, wanted)
    losses = functional.cross_entropy(
        data,
        wanted,
        weight=weight,
        ignore_index=ignore_index,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    counts = None
    if not wanted.is_floating_point():
        counts = _class_counts(wanted, weight, ignore_index, losses)
    return _reduced(losses, counts, logits, reduction)


def nll_loss(
    log_probabilities: Batch,
    targets: Batch,
    *,
    reduction: Reduction = "mean",
    weight: Tensor | None = None,
    ignore_index: int = -100,
) -> Tensor | Batch:
    """Negative log-likelihood of all rows, reduced; arguments, reductions and errors as in `cross_entropy`.

    >>> log_probabilities = Packed(torch.full((2, 2), 0.5).log(), [1, 1])
    >>> nll_loss(log_probabilities, Packed(torch.tensor([0, 1]), [1, 1]), reduction="sum")
    tensor(1.3863)
    """
    data, wanted = _rows_of_both("nll_loss", reduction, log_probabilities, targets)
    wanted = _checked_classes("nll_loss: log_probabilities", data, wanted)
    losses = functional.nll_loss(data, wanted, weight=weight, ignore_index=ignore_index, reduction="none")
    counts = _class_counts(wanted, weight, ignore_index, losses)
    return _reduced(losses, counts, log_probabilities, reduction)


def mse_loss(predictions: Batch, targets: Batch, *, reduction: Reduction = "mean") -> Tensor | Batch:
    """Squared error of all elements, reduced; reductions and errors as in `cross_entropy`.

    Raises:
        LayoutError: rows of different shapes, which torch would broadcast.

    >>> a, b = Packed(torch.tensor([1.0, 2.0, 3.0, 9.0]), [3, 1]), Packed(torch.zeros(4), [3, 1])
    >>> mse_loss(a, b), mse_loss(a, b, reduction="sequence_mean")  # 95 / 4, (14 / 3 + 81) / 2
    (tensor(23.7500), tensor(42.8333))
    """
    data, wanted = _rows_of_both("mse_loss", reduction, predictions, targets)
    _check_same_shape("mse_loss", data, wanted)
    return _reduced(functional.mse_loss(data, wanted, reduction="none"), None, predictions, reduction)


def binary_cross_entropy_with_logits(
    logits: Batch,
    targets: Batch,
    *,
    reduction: Reduction = "mean",
    weight: Tensor | Batch | None = None,
    pos_weight: Tensor | None = None,
) -> Tensor | Batch:
    """Binary cross entropy of all elements, reduced; reductions and errors as in `mse_loss`.

    Args:
        logits: data `(N, *)`.
        targets: of the same kind, layout and shape, from 0 to 1.
        reduction: as in `cross_entropy`.
        weight: factor of each element: a tensor whose shape broadcasts to `(N, *)`, or a batch of the logits' kind,
            layout and shape.
        pos_weight: weight of positive targets; its shape broadcasts to `(N, *)`.

    >>> logits, targets = Packed(torch.zeros(3), [2, 1]), Packed(torch.ones(3), [2, 1])
    >>> binary_cross_entropy_with_logits(logits, targets)
    tensor(0.6931)
    """
    data, wanted = _rows_of_both("binary_cross_entropy_with_logits", reduction, logits, targets)
    _check_same_shape("binary_cross_entropy_with_logits", data, wanted)
    if isinstance(weight, (Packed, PackedSequence)):
        name = "binary_cross_entropy_with_logits"
        weight = rows_in_order_of(logits, weight, name, ("inputs", "weight"))
        _check_same_shape(name, data, weight, "weight")
    losses = functional.binary_cross_entropy_with_logits(
        data, wanted, weight=weight, pos_weight=pos_weight, reduction="none"
    )
    return _reduced(losses, None, logits, reduction)


def ctc_loss(
    logits: Packed | PackedSequence,
    targets: Packed | PackedSequence,
    *,
    blank: int = 0,
    reduction: Literal["mean", "sum", "none"] = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """Connectionist temporal classification of every sequence, reduced as in `torch.nn.functional.ctc_loss`.

    Args:
        logits: data `(N, C)`; normalised here, which does not change log-probabilities. bfloat16 and float16 are
            computed in float32.
        targets: labels `(S,)` of the same B sequences, integers other than `blank`; their lengths may differ.
        blank: the class between labels.
        reduction: "mean" of the losses, each divided by its number of labels, NaN without sequences; "sum"; or "none"
            for `(B,)`.
        zero_infinity: whether losses are 0 instead of infinite if the labels do not fit into their sequence.

    Raises:
        TypeError: inputs that are not batches.
        LengthsError: different numbers of sequences.
        ValueError: an unknown reduction, logits that are not `(N, C)`, or labels that are not whole numbers from 0 to
            C - 1 other than `blank`; the message names the first.

    >>> ctc_loss(Packed(torch.zeros(5, 3), [3, 2]), Packed(torch.tensor([1, 2]), [1, 1]), reduction="none")
    tensor([1.5041, 1.0986])
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"ctc_loss: reduction must be mean, sum or none, got {reduction!r}")
    frames, labels = as_packed(logits, "ctc_loss"), as_packed(targets, "ctc_loss")
    if len(frames) != len(labels):
        raise LengthsError(f"ctc_loss: logits have {len(frames)} sequences, but targets have {len(labels)}")
    _check_labels(frames.data, targets.data, blank)
    if len(frames) == 0:  # torch refuses it
        none = frames.data.sum(1)
        return none if reduction == "none" else none.sum() if reduction == "sum" else none.mean()
    losses = functional.ctc_loss(
        frames.map(lambda rows: wide(rows).log_softmax(-1)).pad(
            batch_first=False,
            total_length=max(frames._layout.steps, 1),  # torch needs at least one step
        ),
        labels.data,
        frames._layout.lengths,
        labels._layout.lengths,
        blank=blank,
        reduction=reduction,
        zero_infinity=zero_infinity,
    )
    return losses if torch.is_autocast_enabled(losses.device.type) else losses.to(frames.dtype)


def _check_labels(logits: Tensor, labels: Tensor, blank: int) -> None:
    """Raise ValueError for labels that torch would look up outside the logits, or treat as blanks."""
    if logits.dim() != 2:
        raise ValueError(f"ctc_loss: logits must be (N, C), got {tuple(logits.shape)}")
    if labels.dim() != 1 or labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ValueError(
            f"ctc_loss: targets must be whole numbers (S,), got {labels.dtype} {tuple(labels.shape)}"
        )
    is_wrong = (labels < 0) | (labels >= logits.shape[1]) | (labels == blank)
    if bool(is_wrong.any()):  # synchronises if the labels are on a device
        i = int(is_wrong.nonzero()[0, 0])
        raise ValueError(
            f"ctc_loss: targets.data[{i}] = {int(labels[i])} is not a class from 0 to {logits.shape[1] - 1} "
            f"other than blank={blank}"
        )


def _rows_of_both(name: str, reduction: str, inputs: Any, targets: Any) -> tuple[Tensor, Tensor]:
    """The rows of both, in the same order."""
    if reduction not in _REDUCTIONS:
        raise ValueError(f"{name}: reduction must be one of {', '.join(_REDUCTIONS)}, got {reduction!r}")
    for batch, role in ((inputs, "inputs"), (targets, "targets")):
        if not isinstance(batch, (Packed, PackedSequence)):
            raise TypeError(
                f"{name}: {role} must be Packed or PackedSequence, got {type(batch).__name__}; "
                f"padded tensors become one by padless.pack({role}, lengths)"
            )
    return inputs.data, rows_in_order_of(inputs, targets, name, ("inputs", "targets"))


def _checked_classes(name: str, data: Tensor, wanted: Tensor) -> Tensor:
    """The targets, int64 if they are uint8, with which torch would index as with a mask."""
    if data.dim() < 2:  # torch would take all rows for the classes of one
        raise ValueError(f"{name} must be (N, C, ...), got {tuple(data.shape)}")
    return wanted.long() if wanted.dtype == torch.uint8 else wanted


def _check_same_shape(name: str, data: Tensor, wanted: Tensor, role: str = "targets") -> None:
    if data.shape != wanted.shape:
        raise LayoutError(
            f"{name}: rows have shape {tuple(data.shape[1:])}, {role} {tuple(wanted.shape[1:])}"
        )


def _class_counts(targets: Tensor, weight: Tensor | None, ignore_index: int, losses: Tensor) -> Tensor:
    """The weight of each row: that of its class, or 1; 0 if it is ignored."""
    is_counted = targets != ignore_index
    if weight is None:
        return is_counted.to(losses.dtype)
    return weight[targets.where(is_counted, 0)].to(losses.dtype).where(is_counted, 0)


def _reduced(losses: Tensor, counts: Tensor | None, batch: Batch, reduction: str) -> Tensor | Batch:
    if reduction == "none":
        return with_rows(batch, losses)
    if reduction == "sum":
        return losses.sum()
    dtype, losses = losses.dtype, wide(losses)
    counts = torch.ones_like(losses) if counts is None else counts.to(losses.dtype)
    if reduction == "mean":
        return (losses.sum() / counts.sum()).to(dtype)
    return _mean_of_means(losses, counts, batch).to(dtype)


def _mean_of_means(losses: Tensor, counts: Tensor, batch: Any) -> Tensor:
    """The mean of each sequence's own mean, over the sequences whose counts are not 0."""
    both = torch.stack([losses, counts], 1)  # (N, 2, *)
    of_rows = both.unsqueeze(-1).flatten(2).sum(2)  # (N, 2)
    sums, weights = sequence_sums(with_rows(batch, of_rows)).unbind(1)
    is_counted = weights > 0
    means = (sums / weights.where(is_counted, 1)).where(is_counted, 0)
    return means.sum() / is_counted.sum()
