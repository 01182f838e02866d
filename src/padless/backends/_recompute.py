"""The option to save memory in training by recomputing gates in backward; read by the native backend."""

from __future__ import annotations

__all__ = ["is_recomputing", "recompute"]

_recomputes = False


class recompute:  # noqa: N801 - called like a function, like torch.no_grad
    """Recompute gates in backward instead of keeping them: `recompute(True)`, or `with recompute(): ...`.

    Applies to the native backend and is read in the forward pass (compiled functions recompile when it changes).
    Gradients stay bit-identical, except in bfloat16 and float16, where they change by a rounding. An LSTM keeps 2
    numbers per row and unit instead of 6, for a third more multiplications in training.

    >>> import torch, padless
    >>> with recompute():
    ...     output, _ = padless.nn.LSTM(3, 4)(torch.randn(5, 2, 3))
    >>> output.sum().backward()
    """

    def __init__(self, enabled: bool = True) -> None:
        global _recomputes
        self._enabled, self._before, self._is_new = enabled, [_recomputes], True
        _recomputes = enabled

    def __enter__(self) -> recompute:
        global _recomputes
        if not self._is_new:  # the same object in another block
            self._before.append(_recomputes)
        _recomputes, self._is_new = self._enabled, False
        return self

    def __exit__(self, *exception: object) -> None:
        global _recomputes
        if self._before:
            _recomputes = self._before.pop()


def is_recomputing() -> bool:
    """Whether gates are recomputed in backward."""
    return _recomputes
