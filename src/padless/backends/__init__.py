"""The backends that compute layers, and the choice between them, which `use` and `PADLESS_BACKEND` override.

`"native"` C++ kernels on the CPU; `"portable"` torch operations on any device; `"torch"` torch's own
operators. By default CPU tensors use the fastest backend that was built, CUDA tensors torch's own operators
(cuDNN), and tensors on other devices the portable backend.
"""

from __future__ import annotations

import os

from .. import library
from ..errors import BackendError
from ..options import near
from ._recompute import recompute
from ._setting import Choice, Setting

__all__ = ["active", "available", "choose", "instruction_set", "recompute", "use", "why"]

NAMES = ("native", "portable", "torch")

_forced: Setting[str | None] = Setting(None)


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
    forced = _forced.now or _from_environment()
    if forced == "native" and device_type == "meta":
        return "portable"  # shapes only; nothing is computed there
    if forced == "native" and device_type != "cpu":
        raise BackendError(f"the native backend runs on the CPU only, got tensors on {device_type}")
    if forced is not None:
        return forced
    if device_type == "cpu":
        return "native" if library.is_available() else "portable"
    return "torch" if device_type == "cuda" else "portable"


def is_forced() -> bool:
    """Whether a backend was chosen by `use` or by `PADLESS_BACKEND`."""
    return _forced.now is not None or bool(os.environ.get("PADLESS_BACKEND"))


def is_native() -> bool:
    """Whether layers on CPU tensors run on the native kernels; a faster `choose("cpu") == "native"`."""
    return choose("cpu") == "native" if is_forced() else library.is_available()


def instruction_set() -> str | None:
    """Name of the instruction set that the native kernels use (`PADLESS_ISA` forces one), or None without them.

    >>> instruction_set() in ("amx", "avx512_bf16", "avx512", "avx2", "baseline", None)
    True
    """
    return library.isa() if library.missing() is None else None


def why() -> str:
    """One sentence that says why the active backend was chosen."""
    if _forced.now is not None:
        return "chosen by padless.backends.use"
    if _from_environment() is not None:
        return "chosen by PADLESS_BACKEND"
    missing = _missing("native")
    if missing is None:
        return "the fastest available backend"
    return f"the native backend is not available: {missing}"


class use(Choice[str | None]):  # noqa: N801 - called like a function, like torch.no_grad
    """Force a backend for the process: `use("portable")`, or for a block: `with use("portable"): ...`.

    The choice applies to the whole process, even in a `with` block, so threads cannot use different backends. Of
    several open blocks, the one entered last counts, in whichever order they end. A call in a block lasts until the
    end of that block.

    Args:
        name: one of `available()`, or None for the default choice.

    Raises:
        BackendError: the backend does not exist, or is not available here; the message says why.

    >>> with use("portable"):
    ...     active()
    'portable'
    """

    def __init__(self, name: str | None) -> None:
        if name is not None:
            _check(name, "backend")
        super().__init__(_forced, name)


def _from_environment() -> str | None:
    name = os.environ.get("PADLESS_BACKEND") or None
    if name is not None:
        _check(name, "PADLESS_BACKEND")
    return name


def _check(name: str, source: str) -> None:
    if name not in NAMES:
        raise BackendError(
            f"{source}: there is no backend {name!r}, only {', '.join(NAMES)}{near(name, NAMES)}"
        )
    missing = _missing(name)
    if missing is not None:
        raise BackendError(f"{source}: {name!r} is not available here: {missing}")


def _missing(name: str) -> str | None:
    """The reason why a backend is not available here, or None if it is."""
    return library.missing() if name == "native" else None
