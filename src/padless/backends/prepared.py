"""A layer prepared for many inference calls: it caches checks, packed weights and kernel arguments.

A call of one step takes microseconds in the kernel, so checks, index arrays and the kernels' argument block are cached.
A ragged batch brings its own index arrays (`Schedule`), so only the block is cached.
Packed weights are cached too and compared by fingerprint before a call, since version counters miss writes through
`.data`; a single step of few rows reads the weights themselves instead.
"""

from __future__ import annotations

import threading
from ctypes import addressof, c_int64, c_void_p
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import BackendError
from ..layout.schedule import Schedule
from . import _kernels
from .contract import Cell, Precision, States
from .native import new_output

__all__ = ["PreparedLayer", "infer_layers", "scratch_memory"]

_FEW_ROWS = 12  # measured: docs/decisions/0029-weights-read-once.md
_SHAPES = 32  # sets of T, B and threads for which a layer caches arguments

_own = threading.local()
_shapes_lock = threading.Lock()
_KEPT_SCRATCH = 4 << 20  # bytes that a thread keeps; a call with 256 rows and H = 512 takes 3 MB


def scratch_memory(size: int) -> tuple[int, int, Tensor]:
    """At least `size` bytes of scratch, valid until this thread's next call: size, aligned address, memory."""
    kept: tuple[int, int, Tensor] | None = getattr(_own, "scratch", None)
    if kept is not None and kept[0] >= size:
        return kept
    memory = torch.empty(size + 64, dtype=torch.uint8, device="cpu")
    new = size, (memory.data_ptr() + 63) & -64, memory
    if size <= _KEPT_SCRATCH:
        _own.scratch = new
    return new


class _Arguments(NamedTuple):
    """The kernels' arguments for calls of one T and B, used by one call at a time."""

    problem: _kernels.Problem  # pointers to the caller's tensors are set in every call
    address: int
    batch_sizes: Tensor


class _Block(NamedTuple):
    """The kernels' arguments for calls of any schedule, used by one call at a time."""

    problem: _kernels.Problem  # the fields of the layer are set; those of the batch are set in every call
    address: int


class PreparedLayer:
    """A layer in one direction that caches its packed weights and kernel arguments between calls.

    Args:
        cell: the cell type.
        weights: those of all layers; from `begin` to `end` those of this one: `w_ih (G, I)`, `w_hh (G, H)`,
            `b_ih (G,)`, `b_hh (G,)`, contiguous; the caller has checked the shapes. The biases may be missing.
        precision: of products (`precision_of`).
        reverse: whether time runs from each sequence's last row to its first; only for `infer_ragged`.
    """

    def __init__(
        self,
        cell: Cell,
        weights: list[Tensor],
        begin: int,
        end: int,
        precision: Precision,
        *,
        reverse: bool = False,
    ) -> None:
        self._library = _kernels.load()
        self._isa = self._library.padless_isa_active()
        self.cell: Cell = cell
        self._precision: Precision = precision
        self._reverse = reverse
        self._begin, self._end = begin, end
        weights = weights[begin:end]
        w_ih, w_hh = weights[0], weights[1]
        self._dtype, self._input, self._hidden = w_ih.dtype, w_ih.shape[1], w_hh.shape[1]
        self._are_readable = self._dtype != torch.float16 and precision == "highest"
        self._memory = [(w.data_ptr(), w.shape) for w in weights]
        # As ctypes values, which saves a quarter of the time of a fingerprint of a small tensor.
        self._spans = [(c_void_p(w.data_ptr()), c_int64(w.nbytes)) for w in weights]
        self._kept: tuple[list[int], Tensor] | None = None
        # By T, B and threads, the arguments that no call uses now: concurrent calls need arguments of their own.
        self._free: dict[tuple[int, int, int], list[_Arguments]] = {}
        self._free_blocks: list[_Block] = []

    def fits(self, weights: list[Tensor]) -> bool:
        """Whether the memory and shapes of the weights and the instruction set in use are those of the constructor.

        `weights`: those of all layers, as many as in the constructor.
        """
        dtype, at = self._dtype, self._begin
        for pointer, shape in self._memory:
            w = weights[at]
            if w.data_ptr() != pointer or w.dtype is not dtype or w.shape != shape or not w.is_contiguous():
                return False
            at += 1
        return self._library.padless_isa_active() == self._isa

    def infer(
        self,
        rows: Tensor,
        steps: int,
        batch: int,
        states: States,
        weights: list[Tensor],
        shape: tuple[int, ...],
    ) -> tuple[Tensor, States]:
        """Return the output, of `shape`, and final states `(1, B, H)` of time-major rows.

        Args:
            rows: T * B rows of I elements in any shape, contiguous, of the weights' dtype, on the CPU.
            steps: T, the same for all sequences.
            batch: B.
            states: initial states `(1, B, H)`, contiguous, of the weights' dtype, or nothing for zeros.
            weights: as passed to `fits`.
            shape: of T * B rows of H elements.
        """
        if rows.dtype is torch.float16:  # the kernels do not read it
            states = tuple([s.float() for s in states])
            output, finals = self.infer(rows.float(), steps, batch, states, weights, shape)
            return output.half(), tuple([s.half() for s in finals])
        # A reference to the packed weights, since another thread may pack again.
        packed = None if self._reads_weights(steps, batch) else self._refresh(weights)
        threads = _kernels.threads_for(self.cell, steps * batch, self._input, self._hidden)
        free = self._free_arguments((steps, batch, threads))
        try:
            arguments = free.pop()
        except IndexError:
            arguments = self._new_arguments(steps, batch, threads, packed)
        problem = arguments.problem
        if packed is not None:
            problem.forward_weights = packed.data_ptr()
        scratch = scratch_memory(problem.scratch_bytes)  # a reference for the duration of the call
        problem.scratch = scratch[1]
        # One operator for all memory: the time of a small call depends on how much different code runs.
        output = rows.new_empty(shape)
        problem.x, problem.y = rows.data_ptr(), output.data_ptr()
        h_n = rows.new_empty((1, batch, self._hidden))
        problem.h_n, problem.h0 = h_n.data_ptr(), states[0].data_ptr() if states else 0
        finals: States = (h_n,)
        if self.cell == "LSTM":
            c_n = rows.new_empty((1, batch, self._hidden))
            problem.c_n, problem.c0 = c_n.data_ptr(), states[1].data_ptr() if states else 0
            finals = (h_n, c_n)
        if code := self._library.padless_forward(arguments.address):
            _kernels.check(code, "forward")
        free.append(arguments)
        return output, finals

    def infer_ragged(
        self,
        rows: Tensor,
        schedule: Schedule,
        states: States,
        finals: States,
        output: Tensor,
        place: int,
        weights: list[Tensor],
    ) -> None:
        """Write the output and the final states of rows placed by a schedule.

        Args:
            rows: `(M, I)`, contiguous, of the weights' dtype but float16, on the CPU.
            schedule: of at least one step, its index arrays contiguous and on the CPU.
            states: initial states `(L*D, B, H)`, contiguous, of the weights' dtype, or nothing for zeros.
            finals: receive the final states, like `states`.
            output: `(M, D*H)`, contiguous; its last H columns receive the output of the direction `reverse`.
            place: the number of this layer and direction among the states.
            weights: as passed to `fits`.
        """
        packed = self._refresh(weights)
        try:
            block = self._free_blocks.pop()
        except IndexError:
            problem = self._new_problem(packed)
            block = _Block(problem, addressof(problem))
        problem, batch, hidden = block.problem, schedule.batch, self._hidden
        problem.threads = _kernels.threads_for(self.cell, schedule.rows, self._input, hidden)
        problem.batch = problem.state_rows = batch
        problem.rows, problem.steps = schedule.rows, schedule.steps
        problem.batch_sizes = schedule.batch_sizes.data_ptr()
        where, order = schedule.place, schedule.order
        problem.x_step = problem.y_step = 0 if where is None else where.step.data_ptr()
        problem.x_sequence = problem.y_sequence = 0 if where is None else where.sequence.data_ptr()
        problem.state_index = 0 if order is None else order.data_ptr()
        size, width = output.element_size(), output.shape[1]
        problem.x, problem.x_rows = rows.data_ptr(), rows.shape[0]
        problem.y_rows, problem.y_stride = output.shape[0], width
        problem.y = output.data_ptr() + (width - hidden) * size if self._reverse else output.data_ptr()
        begin = place * batch * hidden * size
        problem.h_n, problem.h0 = finals[0].data_ptr() + begin, states[0].data_ptr() + begin if states else 0
        if self.cell == "LSTM":
            problem.c_n, problem.c0 = (
                finals[1].data_ptr() + begin,
                states[1].data_ptr() + begin if states else 0,
            )
        problem.forward_weights = packed.data_ptr()
        scratch = scratch_memory(self._set_scratch_bytes(problem))  # a reference for the duration of the call
        problem.scratch = scratch[1]
        if code := self._library.padless_forward(block.address):
            _kernels.check(code, "forward")
        self._free_blocks.append(block)

    def _free_arguments(self, key: tuple[int, int, int]) -> list[_Arguments]:
        """Return the arguments for T, B and threads that no call uses; the list is empty in the first call."""
        free = self._free.get(key)
        if free is None:
            with _shapes_lock:  # another thread may change the dict while this one looks for the oldest
                while len(self._free) >= _SHAPES:
                    self._free.pop(next(iter(self._free)))
                free = self._free.setdefault(key, [])
        return free

    def _reads_weights(self, steps: int, batch: int) -> bool:
        """Whether a call reads torch's weights directly instead of cached packed weights.

        Cached weights are compared by fingerprint, which reads all of them once more. One step of few rows takes about
        as long as reading the weights, so the kernel reads them where they are: the results are bit-identical.
        """
        return steps == 1 and batch <= _FEW_ROWS and self._are_readable

    def _refresh(self, weights: list[Tensor]) -> Tensor:
        """Return the packed weights, packed again if the contents of the weights changed."""
        fingerprint = self._library.padless_fingerprint
        contents = [fingerprint(pointer, size) for pointer, size in self._spans]
        kept = self._kept
        if kept is not None and kept[0] == contents:
            return kept[1]
        w_ih, w_hh, *biases = weights[self._begin : self._end]
        packed = _kernels.pack_forward(
            self.cell, w_ih, w_hh, *(biases or (None, None)), precision=self._precision
        )
        self._kept = (contents, packed)
        return packed

    def _new_arguments(self, steps: int, batch: int, threads: int, packed: Tensor | None) -> _Arguments:
        """New arguments for T, B and threads."""
        batch_sizes = torch.full((steps,), batch, device="cpu")
        problem = self._new_problem(packed)
        problem.threads = threads
        problem.batch = problem.state_rows = batch
        problem.rows = problem.x_rows = problem.y_rows = steps * batch
        problem.steps, problem.batch_sizes = steps, batch_sizes.data_ptr()
        self._set_scratch_bytes(problem)
        return _Arguments(problem, addressof(problem), batch_sizes)

    def _new_problem(self, packed: Tensor | None) -> _kernels.Problem:
        """New arguments with the fields that are the same for every batch; `packed`: None to read torch's weights."""
        problem = _kernels.Problem()
        problem.cell = _kernels.CELLS[self.cell]
        problem.dtype = _kernels.arithmetic(self._dtype, self._precision)
        problem.reverse = self._reverse
        problem.input_size = problem.x_stride = self._input
        problem.hidden_size = problem.y_stride = self._hidden
        problem.h0_stride = problem.c0_stride = problem.h_n_stride = problem.c_n_stride = self._hidden
        problem.narrow_x = problem.narrow_y = problem.narrow_states = self._dtype is torch.bfloat16
        if packed is not None:
            problem.forward_weights_bytes = packed.nbytes
        else:
            pointers = [pointer for pointer, _ in self._memory]
            problem.w_ih, problem.w_hh, problem.b_ih, problem.b_hh = (*pointers, 0, 0)[:4]
            problem.narrow_weights = self._dtype is torch.bfloat16
        return problem

    def _set_scratch_bytes(self, problem: _kernels.Problem) -> int:
        """Set the size of the scratch for a batch, and return it."""
        problem.scratch_bytes = size = self._library.padless_scratch_bytes(addressof(problem), False)
        if size < 0:
            raise BackendError(f"native {self.cell}: no scratch for T = {problem.steps}, B = {problem.batch}")
        return size


def infer_layers(
    prepared: list[PreparedLayer],
    directions: int,
    rows: Tensor,
    schedule: Schedule,
    states: States,
    weights: list[Tensor],
) -> tuple[Tensor, States]:
    """Output `(M, D*H)` of the last layer, placed like the rows, and final states `(L*D, B, H)`.

    Arguments are those of `PreparedLayer.infer_ragged`; `prepared` layer by layer, direction by direction.
    """
    hidden = weights[1].shape[1]
    shape = (len(prepared), schedule.batch, hidden)
    finals: States = (rows.new_empty(shape),)
    if prepared[0].cell == "LSTM":
        finals = (finals[0], rows.new_empty(shape))
    for first in range(0, len(prepared), directions):
        output = new_output(rows, schedule, directions * hidden)
        for place in range(first, first + directions):
            prepared[place].infer_ragged(rows, schedule, states, finals, output, place, weights)
        rows = output
    return rows, finals
