"""The option to save memory in training by recomputing gates in backward; read by the native backend."""

from __future__ import annotations

from ._setting import Choice, Setting

__all__ = ["is_recomputing", "recompute"]

_recomputes = Setting(False)


class recompute(Choice[bool]):  # noqa: N801 - called like a function, like torch.no_grad
    """Recompute gates in backward instead of keeping them: `recompute(True)`, or `with recompute(): ...`.

    Applies to the native backend and is read in the forward pass (compiled functions recompile when it changes).
    Gradients stay bit-identical, except in bfloat16 and float16, where they change by a rounding. An LSTM keeps 2
    numbers per row and unit instead of 6, for a third more multiplications in training. Blocks and calls may be mixed
    as those of `use`.

    >>> import torch, padless
    >>> with recompute():
    ...     output, _ = padless.nn.LSTM(3, 4)(torch.randn(5, 2, 3))
    >>> output.sum().backward()
    """

    def __init__(self, enabled: bool = True) -> None:
        super().__init__(_recomputes, enabled)


def is_recomputing() -> bool:
    """Whether gates are recomputed in backward."""
    return _recomputes.now
