"""A training step of one layer for few rows: one autograd node around kernels that read torch's weights as they are.

For a single step, packing the weights twice (forward and backward) costs more than it saves. Kernel arguments are
cached, as in `prepared`. See docs/decisions/0042-a-single-step-trains-on-the-kernels.md.
"""

from __future__ import annotations

from ctypes import addressof
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..layout.schedule import Schedule
from ..layout.walks import prefer_large_pages
from . import _kernels, native
from .autograd import differentiable_backward, is_batched, without_autocast
from .contract import GATES, Cell, Gradients, Layer, LayerWeights, States
from .prepared import scratch_memory

__all__ = ["STEP_ROWS", "train_step"]

STEP_ROWS = 128  # PADLESS_STEP_ROWS in csrc/padless.h


def train_step(
    cell: Cell, rows: Tensor, states: States, weights: list[Tensor], shape: tuple[int, ...]
) -> tuple[Tensor, States]:
    """Return the output, of `shape`, and final states `(1, B, H)` of one step, differentiable.

    Args:
        cell: the cell type.
        rows: B rows of I elements in any shape, contiguous, float32, float64 or bfloat16, on the CPU; B is 1 to
            STEP_ROWS.
        states: initial states `(1, B, H)`, contiguous, of the rows' dtype, or nothing for zeros.
        weights: `w_ih (G, I)`, `w_hh (G, H)` and perhaps `b_ih (G,)`, `b_hh (G,)`, contiguous, of the rows' dtype.
        shape: of B rows of H elements.
    """
    h0, c0 = (*states, None, None)[:2]
    w_ih, w_hh, *biases = weights
    b_ih, b_hh = biases or (None, None)
    input_size, hidden = w_ih.shape[1], w_hh.shape[1]
    batch = rows.numel() // input_size
    threads = _kernels.threads_for(cell, batch, input_size, hidden)
    isa = _kernels.load().padless_isa_active()
    step = _step(cell, rows.dtype, batch, input_size, hidden, threads, isa)
    output, *finals = _Node.apply(step, shape, rows, h0, c0, w_ih, w_hh, b_ih, b_hh)
    return output, tuple(finals)


class _Block(NamedTuple):
    """Arguments of the kernels; each call sets the pointers."""

    problem: _kernels.Problem
    address: int
    batch_sizes: Tensor


class _Step:
    """What the kernels' arguments depend on, except for pointers, and those that no call uses now."""

    def __init__(
        self, cell: Cell, dtype: torch.dtype, batch: int, input_size: int, hidden: int, threads: int
    ) -> None:
        self.cell: Cell = cell
        self.dtype, self.batch = dtype, batch
        self.input_size, self.hidden, self.threads = input_size, hidden, threads
        self.cells_dtype = torch.float32 if dtype is torch.bfloat16 else dtype
        self.gates = (batch, _kernels.saved_width(cell, hidden))
        self.cells = (batch, _kernels.cells_width(cell, hidden))
        # Other threads need blocks of their own. Only `pop` and `append` change these lists.
        self.forward_blocks: list[_Block] = []
        self.backward_blocks: list[_Block] = []

    def new_block(self, *, backward: bool) -> _Block:
        """New arguments for one of the passes."""
        batch, hidden, narrow = self.batch, self.hidden, self.dtype is torch.bfloat16
        batch_sizes = torch.tensor([batch], device="cpu")
        problem = _kernels.Problem()
        problem.cell, problem.dtype = _kernels.CELLS[self.cell], _kernels.arithmetic(self.dtype, "highest")
        problem.threads = self.threads
        problem.batch = problem.state_rows = problem.rows = problem.x_rows = problem.y_rows = batch
        problem.steps, problem.batch_sizes = 1, batch_sizes.data_ptr()
        problem.input_size = problem.x_stride = problem.dx_stride = self.input_size
        problem.hidden_size = problem.y_stride = problem.dy_stride = hidden
        problem.h0_stride = problem.c0_stride = problem.h_n_stride = problem.c_n_stride = hidden
        problem.dh0_stride = problem.dc0_stride = problem.dh_n_stride = problem.dc_n_stride = hidden
        problem.narrow_x = problem.narrow_y = problem.narrow_states = narrow
        problem.narrow_gates = problem.narrow_weights = narrow
        problem.gates_bytes = batch * self.gates[1] * self.dtype.itemsize
        problem.cells_bytes = batch * self.cells[1] * self.cells_dtype.itemsize
        # The size of the scratch depends on whether these are null.
        problem.w_hh = problem.gates = batch_sizes.data_ptr()
        problem.scratch_bytes = _kernels.load().padless_scratch_bytes(addressof(problem), backward)
        return _Block(problem, addressof(problem), batch_sizes)

    def can_read(self, tensors: tuple[Tensor | None, ...]) -> bool:
        """Whether saved tensors are as in the forward pass: a hook or a write to `.data` may have changed them."""
        gates, state = GATES[self.cell] * self.hidden, self.batch * self.hidden
        sizes = (
            self.batch * self.input_size, state, state, gates * self.input_size, gates * self.hidden, gates, gates,
            state, self.gates[0] * self.gates[1], self.cells[0] * self.cells[1],
        )  # fmt: skip
        dtypes = (self.dtype,) * 9 + (self.cells_dtype,)
        return all(
            t is None
            or (
                (t.numel(), t.dtype) == (size, dtype)
                and t.is_cpu
                and t.is_contiguous()
                and t.untyped_storage().nbytes() >= (t.storage_offset() + size) * dtype.itemsize
            )
            for t, size, dtype in zip(tensors, sizes, dtypes, strict=True)
        )


@lru_cache(maxsize=64)
def _step(
    cell: Cell, dtype: torch.dtype, batch: int, input_size: int, hidden: int, threads: int, isa: bytes
) -> _Step:
    return _Step(cell, dtype, batch, input_size, hidden, threads)


def _pointers(tensors: tuple[Tensor | None, ...]) -> list[int]:
    return [0 if t is None else t.data_ptr() for t in tensors]


class _Node(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        step: _Step,
        shape: tuple[int, ...],
        rows: Tensor,
        h0: Tensor | None,
        c0: Tensor | None,
        *weights: Tensor | None,  # the first four of LayerWeights
    ) -> tuple[Tensor, ...]:
        output, h_n = rows.new_empty(shape), rows.new_empty((1, step.batch, step.hidden))
        gates = rows.new_empty(step.gates)
        cells, finals = None, (h_n,)
        if step.cell == "LSTM":
            cells = rows.new_empty(step.cells, dtype=step.cells_dtype)
            finals = (h_n, rows.new_empty((1, step.batch, step.hidden)))
        given = (rows, h0, c0, *weights)
        block = step.forward_blocks.pop() if step.forward_blocks else step.new_block(backward=False)
        problem = block.problem
        pointers = _pointers((*given, gates, cells))
        problem.x, problem.h0, problem.c0, problem.w_ih, problem.w_hh, problem.b_ih, problem.b_hh = pointers[
            :7
        ]
        problem.gates, problem.cells = pointers[7:]
        problem.y, problem.h_n, problem.c_n = output.data_ptr(), h_n.data_ptr(), finals[-1].data_ptr()
        scratch = scratch_memory(problem.scratch_bytes)  # a reference for the duration of the call
        problem.scratch = scratch[1]
        if code := _kernels.load().padless_forward(block.address):
            _kernels.check(code, "forward")
        step.forward_blocks.append(block)
        kept = output.clone()  # the caller may change the output in place
        ctx.step, ctx.pointers = step, [*pointers[:7], kept.data_ptr(), *pointers[7:]]
        ctx.save_for_backward(*given, kept, gates, cells)
        ctx.set_materialize_grads(False)
        return (output, *finals)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Gradients:
        step, tensors, needs = ctx.step, ctx.saved_tensors, ctx.needs_input_grad[2:]
        create_graph = torch.is_grad_enabled()
        if create_graph or any(g is not None and is_batched(g) for g in grads):
            return None, None, *_composed_backward(step, tensors, grads, needs)
        pointers = _pointers(tensors)
        if pointers != ctx.pointers and not step.can_read(tensors):
            return None, None, *_composed_backward(step, tensors, grads, needs)
        return None, None, *_backward(step, tensors, pointers, grads, needs)


def _backward(
    step: _Step, tensors: tuple[Any, ...], pointers: list[int], grads: Gradients, needs: tuple[bool, ...]
) -> Gradients:
    block = step.backward_blocks.pop() if step.backward_blocks else step.new_block(backward=True)
    problem = block.problem
    problem.x, problem.h0, problem.c0, problem.w_ih, problem.w_hh = pointers[:5]
    problem.y, problem.gates, problem.cells = pointers[7:]
    flat = tuple([None if g is None else g.contiguous() for g in (*grads, None)[:3]])
    problem.dy, problem.dh_n, problem.dc_n = _pointers(flat)
    wanted = tuple(
        [
            prefer_large_pages(torch.empty_like(t, memory_format=torch.contiguous_format)) if need else None
            for t, need in zip(tensors[:7], needs, strict=True)
        ]
    )
    found = _pointers(wanted)
    problem.dx, problem.dh0, problem.dc0, problem.dw_ih, problem.dw_hh, problem.db_ih, problem.db_hh = found
    scratch = scratch_memory(problem.scratch_bytes)
    problem.scratch = scratch[1]
    if code := _kernels.load().padless_backward(block.address):
        _kernels.check(code, "backward")
    step.backward_blocks.append(block)
    return wanted


def _composed_backward(
    step: _Step, tensors: tuple[Any, ...], grads: Gradients, needs: tuple[bool, ...]
) -> Gradients:
    """The same gradients, computed by torch operations and so differentiable again."""
    rows, h0, c0, w_ih, w_hh, b_ih, b_hh = tensors[:7]
    batch, hidden = step.batch, step.hidden
    zeros = rows.new_zeros(batch, hidden)
    states = [zeros if s is None else s.reshape(batch, hidden) for s in (h0, c0)]
    layer = Layer(
        step.cell,
        rows.reshape(batch, step.input_size),
        Schedule(torch.tensor([batch], device="cpu"), rows=batch, slots=batch),
        tuple(states) if step.cell == "LSTM" else (states[0],),
        LayerWeights(w_ih, w_hh, b_ih, b_hh, None),
        reverse=False,
    )
    flat = tuple(None if g is None else g.reshape(batch, hidden) for g in grads)
    with without_autocast("cpu"):
        found = differentiable_backward(native, layer, flat, (*needs, False))
    return tuple(None if g is None else g.reshape(t.shape) for g, t in zip(found, tensors[:7], strict=False))
