"""RNN, LSTM and GRU: torch's modules with a forward that skips the padding."""

from __future__ import annotations

from typing import Any

import torch

from . import _dynamo
from ._forward import forward as _forward

__all__ = ["GRU", "LSTM", "RNN"]

_dynamo.allow_rnn()

# Each class differs from its torch counterpart only in forward: constructor, parameters, state_dict, repr and
# all helper methods are inherited, so `accelerate` can turn one into the other.


class RNN(torch.nn.RNN):
    """`torch.nn.RNN` (tanh or relu) whose cost depends only on the real rows.

    Constructor, parameters, initial values, `state_dict`, `repr` and errors are torch's.

    >>> rnn = RNN(10, 20, batch_first=True)
    >>> output, h_n = rnn(torch.randn(2, 5, 10), lengths=[5, 3])
    >>> output.shape, h_n.shape, bool((output[1, 3:] == 0).all())
    (torch.Size([2, 5, 20]), torch.Size([1, 2, 20]), True)
    """

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None) -> Any:  # type: ignore[override]
        """Output of the last layer, of the same kind as `input`, and the last state of each sequence.

        Args:
            input: `PackedSequence`, `padless.Packed` or jagged nested tensor with rows `(N, I)`; or a padded
                tensor `(T, B, I)`, `(B, T, I)` with `batch_first`, `(T, I)` unbatched.
            hx: initial state `(L*D, B, H)` in the caller's order (`(L*D, H)` unbatched); zeros if None.
            lengths: for a padded batch, `(B,)` whole numbers: cells past a length are neither read nor
                computed, and their output is 0.

        Returns:
            `(output, h_n)`: output of width `D*H`; `h_n (L*D, B, H)` in the caller's order. The last state of a
            sequence of length 0 is its initial state.

        Raises:
            ValueError, RuntimeError: as in torch, for wrong widths, dtypes and state shapes.
            LengthsError, LayoutError: invalid lengths or `batch_sizes` (both are ValueErrors).
        """
        return _forward(self, input, hx, lengths)


class GRU(torch.nn.GRU):
    """`torch.nn.GRU` whose cost depends only on the real rows.

    Constructor, parameters, initial values, `state_dict`, `repr` and errors are torch's; `forward` is like
    `RNN.forward`.

    >>> gru = GRU(10, 20, bidirectional=True)
    >>> packed = torch.nn.utils.rnn.pack_sequence([torch.randn(4, 10), torch.randn(2, 10)])
    >>> output, h_n = gru(packed)
    >>> output.data.shape, h_n.shape
    (torch.Size([6, 40]), torch.Size([2, 2, 20]))
    """

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None) -> Any:  # type: ignore[override]
        """Output and `h_n (L*D, B, H)`; arguments, kinds and errors as in `RNN.forward`."""
        return _forward(self, input, hx, lengths)


class LSTM(torch.nn.LSTM):
    """`torch.nn.LSTM` whose cost depends only on the real rows.

    Constructor, parameters, initial values, `state_dict`, `repr` and errors are torch's.

    >>> lstm = LSTM(10, 20, num_layers=2)
    >>> packed = torch.nn.utils.rnn.pack_sequence([torch.randn(4, 10), torch.randn(2, 10)])
    >>> output, (h_n, c_n) = lstm(packed)
    >>> output.data.shape, h_n.shape, c_n.shape
    (torch.Size([6, 20]), torch.Size([2, 2, 20]), torch.Size([2, 2, 20]))
    """

    def forward(self, input: Any, hx: Any = None, *, lengths: Any = None) -> Any:  # type: ignore[override]
        """Output and `(h_n, c_n)`; kinds, `lengths` and errors as in `RNN.forward`.

        `hx` is `(h0, c0)`, `(L*D, B, P)` and `(L*D, B, H)`, where P is `proj_size` if there is one, else H.
        """
        return _forward(self, input, hx, lengths)
