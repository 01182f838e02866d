"""The shared library of kernels (`csrc/padless.h`): functions and structs in ctypes, and instruction sets."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

from .errors import BackendError

__all__ = [
    "Move",
    "MovedRows",
    "Problem",
    "assume_l2_bytes",
    "check",
    "compiled_isas",
    "computes_dtype",
    "force_isa",
    "is_available",
    "is_forked",
    "isa",
    "load",
    "missing",
    "supported_isas",
]

_ABI = 11
_PROBLEM = [
    "cell", "dtype", "reverse", "threads", "batch", "rows", "steps", "input_size", "hidden_size",
    "batch_sizes", "x", "x_rows", "x_stride", "x_step", "x_sequence", "y", "y_rows", "y_stride",
    "y_step", "y_sequence", "state_index", "state_rows", "h0", "h0_stride", "c0", "c0_stride", "h_n",
    "h_n_stride", "c_n", "c_n_stride", "forward_weights", "forward_weights_bytes", "backward_weights",
    "backward_weights_bytes", "gates", "gates_bytes", "cells", "cells_bytes", "scratch",
    "scratch_bytes", "dy", "dy_stride", "dh_n", "dh_n_stride", "dc_n", "dc_n_stride", "dh0",
    "dh0_stride", "dc0", "dc0_stride", "dx", "dx_stride", "dw_ih", "dw_hh", "db_ih", "db_hh",
    "projection_size", "dw_hr", "narrow_x", "narrow_y", "narrow_states", "narrow_gates",
    "w_ih", "w_hh", "b_ih", "b_hh", "narrow_weights",
]  # fmt: skip


class Problem(ctypes.Structure):
    """`padless_problem` of `csrc/padless.h`: one layer in one direction. Pointers are addresses, 0 is null."""

    _fields_ = [(name, ctypes.c_int64) for name in _PROBLEM]


class MovedRows(ctypes.Structure):
    """`padless_rows` of `csrc/padless.h`: where the rows of each sequence are."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("data", "rows", "first", "batch_sizes", "size_count", "step", "sequence", "pieces")
    ]


class Move(ctypes.Structure):
    """`padless_move` of `csrc/padless.h`: rows copied from one layout to another."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("sequences", "steps", "row_bytes", "threads", "lengths")),
        ("source", MovedRows),
        ("target", MovedRows),
        ("right_aligned", ctypes.c_int64),
        ("fill", ctypes.c_int64),
    ]


_SUFFIX = {"win32": ".dll", "darwin": ".dylib"}.get(sys.platform, ".so")
_library: ctypes.CDLL | None = None
_is_available: bool | None = None
_computed: dict[int, bool] = {}  # cache of `computes_dtype` for the instruction set in use
_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_note_fork)


def is_forked() -> bool:
    """Whether this process was forked after the import, so that calls must use one thread.

    OpenMP's threads do not survive a fork, and a child that uses them waits forever.
    """
    return _forked


def load() -> ctypes.CDLL:
    """The library, loaded and declared on first use.

    Raises:
        BackendError: it was not built, has another version, or `PADLESS_ISA` names a set that is not available.
    """
    global _library
    if _library is None:
        _library = _loaded()  # only now may other threads use it: the instruction set is chosen
    return _library


def _loaded() -> ctypes.CDLL:
    path = Path(__file__).parent / "backends" / f"libpadless_kernels{_SUFFIX}"
    if not path.exists():
        raise BackendError(f"this build has no native kernels: {path} is missing")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise BackendError(f"the native kernels cannot be loaded: {error}") from error
    _declare(library)
    if (
        library.padless_abi_version() != _ABI
        or library.padless_problem_bytes() != ctypes.sizeof(Problem)
        or library.padless_move_bytes() != ctypes.sizeof(Move)
    ):
        raise BackendError(f"{path} is of another version of padless; install padless again")
    name = os.environ.get("PADLESS_ISA")
    if name:
        _force(library, name)
    return library


def is_available() -> bool:
    """Whether the kernels are available here, which is found out once; raises like `missing`."""
    global _is_available
    if _is_available is None:
        _is_available = missing() is None
    return _is_available


def missing() -> str | None:
    """The reason why the kernels are not available here, or None if they are.

    Raises:
        BackendError: `PADLESS_ISA` forces an instruction set that is not available.
    """
    try:
        load()
    except BackendError as error:
        if os.environ.get("PADLESS_ISA"):
            raise
        return str(error)
    return None


def _declare(library: ctypes.CDLL) -> None:
    integer, pointer, text, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
    for name, result, arguments in (
        ("abi_version", size, ()),
        ("problem_bytes", size, ()),
        ("move_bytes", size, ()),
        ("move_rows", integer, (pointer,)),
        ("arrange", integer, (pointer, size, size, pointer, pointer, pointer, pointer)),
        ("lengths", integer, (pointer, size, size, pointer, pointer, size, pointer)),
        ("error_text", text, (integer,)),
        ("isa_active", text, ()),
        ("isa_compiled", text, (integer,)),
        ("isa_supported", integer, (text,)),
        ("computes", integer, (size,)),
        ("isa_force", integer, (text,)),
        ("pack_forward_bytes", size, (size,) * 5),
        ("pack_backward_bytes", size, (size,) * 5),
        ("pack_forward", integer, (size,) * 5 + (pointer,) * 5 + (integer, pointer)),
        ("pack_backward", integer, (size,) * 5 + (pointer,) * 3 + (integer, pointer)),
        ("saved_width", size, (size,) * 2),
        ("cells_width", size, (size,) * 2),
        ("scratch_bytes", size, (pointer, integer)),
        ("forward", integer, (pointer,)),
        ("backward", integer, (pointer,)),
        ("fingerprint", ctypes.c_uint64, (pointer, size)),
        ("advise_large_pages", None, (pointer, size)),
        ("assume_l2_bytes", None, (size,)),
        ("sigmoid", integer, (size, pointer, pointer, size)),
        ("tanh", integer, (size, pointer, pointer, size)),
    ):
        function = getattr(library, f"padless_{name}")
        function.restype, function.argtypes = result, arguments


def check(code: int, call: str) -> None:
    """Raise BackendError unless a call of the library returned 0."""
    if code:
        raise BackendError(f"native {call}: {load().padless_error_text(code).decode()}")


def isa() -> str:
    """Name of the instruction set in use."""
    return load().padless_isa_active().decode()


def compiled_isas() -> tuple[str, ...]:
    """Instruction sets in this build, from the most basic to the most advanced."""
    return _compiled(load())


def _compiled(library: ctypes.CDLL) -> tuple[str, ...]:
    names = []
    while name := library.padless_isa_compiled(len(names)):
        names.append(name.decode())
    return tuple(names)


def supported_isas() -> tuple[str, ...]:
    """Sets that this machine can run; "..._emulated" ones are for tests and only used if forced by name."""
    return _supported(load())


def _supported(library: ctypes.CDLL) -> tuple[str, ...]:
    return tuple(name for name in _compiled(library) if library.padless_isa_supported(name.encode()))


def force_isa(name: str | None) -> None:
    """Use this instruction set from now on; None: the best one. Weights are packed per set, so pack them again."""
    _force(load(), name)


def _force(library: ctypes.CDLL, name: str | None) -> None:
    refused = library.padless_isa_force(None if name is None else name.encode())
    _computed.clear()
    if refused:
        runs = [each for each in _supported(library) if not each.endswith("_emulated")]
        raise BackendError(
            f"instruction set {name!r} is not available here; this machine runs {', '.join(runs)}"
        )


def computes_dtype(dtype: int) -> bool:
    """Whether the instruction set in use has kernels for this `padless_dtype`."""
    if dtype not in _computed:  # cached because every call of a layer needs it
        _computed[dtype] = bool(load().padless_computes(dtype))
    return _computed[dtype]


def assume_l2_bytes(size: int) -> None:
    """Prefetch weights as if a core's L2 cache had this size (0: its real size); for tests and measurements."""
    load().padless_assume_l2_bytes(size)
