"""Convolution over time that never reads across sequence boundaries."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch
from torch.nn import functional

from ..layout.layout import Layout
from ..ops._kinds import as_packed, of_kind
from ..options import whole
from ..packed import Packed

__all__ = ["Conv1d"]


class Conv1d(torch.nn.Conv1d):
    """`torch.nn.Conv1d` over the time steps of every sequence, with zeros beyond both ends of a sequence.

    Parameters, initial values and `state_dict` are torch's.

    Args:
        in_channels, out_channels, kernel_size, stride, dilation, groups, bias, device, dtype: as in `torch.nn.Conv1d`.
        padding: "same" for as many output as input rows (stride 1 only); "valid" for no padding; "causal" for outputs
            that depend on no later row; or the number of zeros at each end.
        padding_mode: only "zeros" is supported.

    Raises:
        ValueError: "same" with a stride, an unknown padding or padding mode, or a size that is not a whole number of at
            least 1 (the padding: 0).

    >>> conv = Conv1d(2, 5, 3)
    >>> conv(Packed(torch.randn(4, 2), [3, 1])).data.shape
    torch.Size([4, 5])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int | Literal["same", "valid", "causal"] = "same",
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros"] = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if padding_mode != "zeros":
            raise ValueError(f"Conv1d: padding_mode must be 'zeros', got {padding_mode!r}")
        if isinstance(padding, str) and padding not in ("same", "valid", "causal"):
            raise ValueError(f"Conv1d: padding must be same, valid, causal or a number, got {padding!r}")
        zeros = padding if isinstance(padding, str) else _one_number("padding", padding, 0)
        super().__init__(
            in_channels,
            out_channels,
            _one_number("kernel_size", kernel_size, 1),
            _one_number("stride", stride, 1),
            "valid" if zeros == "causal" else zeros,  # torch has no causal padding
            _one_number("dilation", dilation, 1),
            groups,
            bias,
            device=device,
            dtype=dtype,
        )
        if padding == "causal":
            self.padding = padding  # type: ignore[assignment]

    def forward(self, packed: Any) -> Any:  # type: ignore[override]
        """Convolve a `Packed` or `PackedSequence` with data `(N, in_channels)`; returns the same kind.

        A sequence of n rows gives as many rows as torch's convolution of that sequence alone; none if n is 0.

        Raises:
            TypeError: an unsupported kind of input.
            ValueError: data of the wrong width.
        """
        batch = as_packed(packed, "Conv1d")
        rows, lengths = batch.data, batch._layout.lengths
        if rows.dim() != 2 or rows.shape[1] != self.in_channels:
            raise ValueError(f"Conv1d takes data (N, {self.in_channels}), got {tuple(rows.shape)}")
        left, right = self._zeros()
        stride, reach = self.stride[0], self.dilation[0] * (self.kernel_size[0] - 1)
        counts = ((lengths + left + right - reach - 1).div(stride, rounding_mode="floor") + 1).clamp(min=0)
        counts = counts.where(lengths > 0, 0)
        # The sequences are placed one after another on one time axis, separated by their zeros. Each begins at a
        # multiple of the stride, so that one convolution computes all windows.
        spans = (lengths + left + right).clamp(min=reach + 1)
        spans = (spans + stride - 1) // stride * stride
        begins = spans.cumsum(0) - spans
        steps = cast(int, spans.sum().item()) + reach + 1  # one window more, so that there is one
        layout = Layout(counts)
        torch._check(steps > reach)  # what a compiler cannot know
        row_steps = left + batch._layout.ranges(begins)
        axis = rows.new_zeros(steps, self.in_channels).index_copy(0, row_steps.to(rows.device), rows)
        windows = functional.conv1d(
            axis.t()[None], self.weight, self.bias, stride, 0, self.dilation, self.groups
        )
        used_windows = layout.ranges(begins // stride)
        output = windows[0].t().index_select(0, used_windows.to(rows.device))
        return of_kind(Packed._of(output, layout), packed)

    def _zeros(self) -> tuple[int, int]:
        """Number of zeros before and after each sequence."""
        reach = self.dilation[0] * (self.kernel_size[0] - 1)
        if self.padding == "same":
            return reach // 2, reach - reach // 2
        if self.padding == "causal":
            return reach, 0
        if self.padding == "valid":
            return 0, 0
        (zeros,) = self.padding
        return int(zeros), int(zeros)


def _one_number(name: str, value: Any, least: int) -> int:
    """The number, or that of a tuple of one, which torch takes too."""
    is_tuple_of_one = isinstance(value, (tuple, list)) and len(value) == 1
    return whole(f"Conv1d: {name}", value[0] if is_tuple_of_one else value, least)
