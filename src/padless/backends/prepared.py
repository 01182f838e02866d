"""A layer prepared for many small inference calls: checks, packed weights and kernel arguments are kept.

A call of one step takes microseconds in the kernel, so checks, index arrays and the kernels' argument block are
kept. The weights are compared by fingerprint before every call, since no version counter sees a write through `.data`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import BackendError
from . import _kernels
from .contract import Cell, States

__all__ = ["PreparedLayer"]

_SHAPES = 32  # argument blocks kept for each layer, one for each (T, B)
# Indices of 8-byte fields of padless_problem (csrc/padless.h).
_X, _Y, _STATE_INDEX, _H0, _C0, _H_N, _C_N, _WEIGHTS, _SCRATCH = 10, 15, 20, 22, 24, 26, 28, 30, 38


class PreparedLayer:
    """A layer in one direction whose packed weights and argument blocks are kept between calls.

    Args:
        cell: which equations.
        weights: `w_ih (G, I)`, `w_hh (G, H)`, `b_ih (G,)`, `b_hh (G,)`, contiguous and of these shapes, which
            the caller checked; the biases may be missing.
    """

    def __init__(self, cell: Cell, weights: list[Tensor]) -> None:
        self._library = _kernels.load()
        self._isa = self._library.padless_isa_active()
        self._cell = cell
        w_ih, w_hh = weights[0], weights[1]
        self._dtype, self._input, self._hidden = w_ih.dtype, w_ih.shape[1], w_hh.shape[1]
        self._states = 2 if cell == "LSTM" else 1
        self._memory = [(w.data_ptr(), w.shape, w.nbytes) for w in weights]
        self._kept: tuple[list[int], Tensor] | None = None
        self._blocks: dict[tuple[int, int], tuple[bytes, int, Tensor]] = {}

    def fits(self, weights: list[Tensor]) -> bool:
        """Whether the weights still have the memory and shapes, and the kernels the instruction set, of before."""
        for w, (pointer, shape, _) in zip(weights, self._memory, strict=True):
            if w.data_ptr() != pointer or w.shape != shape or not w.is_contiguous() or w.dtype != self._dtype:
                return False
        return self._library.padless_isa_active() == self._isa

    def infer(
        self,
        weights: list[Tensor],
        rows: Tensor,
        steps: int,
        batch: int,
        hx: States,
        order: Tensor | None,
    ) -> tuple[Tensor, States]:
        """Return output `(T*B, H)` and final states `(1, B, H)` of time-major rows `(T*B, I)`.

        Args:
            weights: those of `fits`.
            rows: contiguous, of the weights' dtype, on the CPU.
            steps: T, alike for all sequences.
            batch: B.
            hx: initial states `(1, B, H)`, contiguous, or nothing for zeros.
            order: `(B,)` int64, which row of the states slot b has; None: row b.
        """
        packed = self._refresh(weights)  # held here: another thread may pack again
        blocks = self._blocks
        block = blocks.get((steps, batch))
        if block is None:
            while len(blocks) >= _SHAPES:
                blocks.popitem()
            block = blocks[steps, batch] = self._new_block(steps, batch, packed.nbytes)
        words, scratch_bytes, _ = block  # held here: it has the batch sizes
        problem = _kernels.Problem.from_buffer_copy(words)
        output = rows.new_empty((steps * batch, self._hidden))
        finals = tuple(rows.new_empty((1, batch, self._hidden)) for _ in range(self._states))
        scratch = torch.empty(scratch_bytes + 64, dtype=torch.uint8)
        problem[_X], problem[_Y] = rows.data_ptr(), output.data_ptr()
        problem[_WEIGHTS] = packed.data_ptr()
        problem[_SCRATCH] = (scratch.data_ptr() + 63) & -64
        for at, final in zip((_H_N, _C_N), finals, strict=False):
            problem[at] = final.data_ptr()
        for at, state in zip((_H0, _C0), hx, strict=False):
            problem[at] = state.data_ptr()
        if order is not None:
            problem[_STATE_INDEX] = order.data_ptr()
        _kernels.check(self._library.padless_forward(problem), "forward")
        return output, finals

    def _refresh(self, weights: list[Tensor]) -> Tensor:
        """Return the packed weights, packed again if the contents of the weights changed."""
        fingerprint = self._library.padless_fingerprint
        contents = [fingerprint(pointer, size) for pointer, _, size in self._memory]
        kept = self._kept
        if kept is not None and kept[0] == contents:
            return kept[1]
        biases = weights[2:] or (None, None)
        packed = _kernels.pack_forward(self._cell, weights[0], weights[1], *biases)
        self._kept = (contents, packed)
        return packed

    def _new_block(self, steps: int, batch: int, weight_bytes: int) -> tuple[bytes, int, Tensor]:
        """Return the argument block for T and B without its pointers, the scratch bytes, and the batch sizes."""
        batch_sizes = torch.full((steps,), batch)
        problem = _kernels.Problem()
        hidden = self._hidden
        for at, value in {
            0: _kernels.CELLS[self._cell], 1: _kernels.DTYPES[self._dtype], 3: 1,
            4: batch, 5: steps * batch, 6: steps, 7: self._input, 8: hidden, 9: batch_sizes.data_ptr(),
            11: steps * batch, 12: self._input, 16: steps * batch, 17: hidden, 21: batch,
            23: hidden, 25: hidden, 27: hidden, 29: hidden, 31: weight_bytes,
        }.items():  # fmt: skip
            problem[at] = value
        size = self._library.padless_scratch_bytes(problem, False)
        if size < 0:
            raise BackendError(f"native {self._cell}: no scratch size for T = {steps}, B = {batch}")
        problem[_SCRATCH + 1] = size
        return bytes(problem), size, batch_sizes
