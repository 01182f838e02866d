"""The backends that compute layers, and the choice between them, which `use` and `PADLESS_BACKEND` override.

`"native"` C++ kernels on the CPU; `"portable"` torch operations on any device; `"torch"` torch's own
operators. By default CPU tensors use the fastest backend that was built, CUDA tensors torch's own operators
(cuDNN), and tensors on other devices the portable backend.
"""

from __future__ import annotations

import difflib
import os
from typing import Any

from ..errors import BackendError
from ._recompute import recompute

__all__ = ["active", "available", "choose", "instruction_set", "recompute", "use", "why"]

NAMES = ("native", "portable", "torch")

_forced: str | None = None


def available() -> tuple[str, ...]:
    """Names of the backends available here, fastest first.

    >>> "portable" in available()
    True
    """
    return tuple(name for name in NAMES if _missing(name) is None)


def active() -> str:
    """Name of the backend that currently computes layers on CPU tensors."""
    return choose("cpu")


def choose(device_type: str) -> str:
    """Name of the backend for tensors on a device of this type (`"cpu"`, `"cuda"`, ...).

    Raises:
        BackendError: `PADLESS_BACKEND` names a backend that does not exist or is not available, or the native backend
            is forced for tensors that are not on the CPU.
    """
    forced = _forced or _from_environment()
    if forced == "native" and device_type == "meta":
        return "portable"  # shapes only; nothing is computed there
    if forced == "native" and device_type != "cpu":
        raise BackendError(f"the native backend runs on the CPU only, got tensors on {device_type}")
    if forced is not None:
        return forced
    if device_type == "cpu":
        return "native" if _has_kernels() else "portable"
    return "torch" if device_type == "cuda" else "portable"


def is_forced() -> bool:
    """Whether a backend was chosen by `use` or by `PADLESS_BACKEND`."""
    return _forced is not None or bool(os.environ.get("PADLESS_BACKEND"))


def is_native() -> bool:
    """Whether layers on CPU tensors run on the native kernels; a faster `choose("cpu") == "native"`."""
    return choose("cpu") == "native" if is_forced() else _has_kernels()


def _has_kernels() -> bool:
    global _native_is_here
    if _native_is_here is None:
        _native_is_here = _missing("native") is None
    return _native_is_here


_native_is_here: bool | None = None


def instruction_set() -> str | None:
    """Name of the instruction set that the native kernels use (`PADLESS_ISA` forces one), or None without them.

    >>> instruction_set() in ("amx", "avx512_bf16", "avx512", "avx2", "baseline", None)
    True
    """
    from . import _kernels

    return None if _missing("native") is not None else _kernels.isa()


def why() -> str:
    """One sentence that says why the active backend was chosen."""
    if _forced is not None:
        return "chosen by padless.backends.use"
    if _from_environment() is not None:
        return "chosen by PADLESS_BACKEND"
    missing = _missing("native")
    if missing is None:
        return "the fastest available backend"
    return f"the native backend is not available: {missing}"


class use:  # noqa: N801 - called like a function, like torch.no_grad
    """Force a backend for the process: `use("portable")`, or for a block: `with use("portable"): ...`.

    The choice applies to the whole process, even in a `with` block, so threads cannot use different backends.

    Args:
        name: one of `available()`, or None for the default choice.

    Raises:
        BackendError: the backend does not exist, or is not available here; the message says why.

    >>> with use("portable"):
    ...     active()
    'portable'
    """

    def __init__(self, name: str | None) -> None:
        global _forced
        if name is not None:
            _check(name, "backend")
        self._name, self._before, self._is_new = name, [_forced], True
        _forced = name

    def __enter__(self) -> use:
        global _forced
        if not self._is_new:  # the same object in another block
            self._before.append(_forced)
        _forced, self._is_new = self._name, False
        return self

    def __exit__(self, *exception: Any) -> None:
        global _forced
        if self._before:
            _forced = self._before.pop()


def _from_environment() -> str | None:
    name = os.environ.get("PADLESS_BACKEND") or None
    if name is not None:
        _check(name, "PADLESS_BACKEND")
    return name


def _check(name: str, source: str) -> None:
    if name not in NAMES:
        near = difflib.get_close_matches(str(name), NAMES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise BackendError(f"{source}: there is no backend {name!r}, only {', '.join(NAMES)}{hint}")
    missing = _missing(name)
    if missing is not None:
        raise BackendError(f"{source}: {name!r} is not available here: {missing}")


def _missing(name: str) -> str | None:
    """The reason why a backend is not available here, or None if it is."""
    if name != "native":
        return None
    from . import _kernels

    return _kernels.missing()
