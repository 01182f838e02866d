"""Variable-length sequences in PyTorch at the cost of their real rows.

Every name is loaded when it is first used, so `import padless` imports neither torch nor numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lazy import lazy

if TYPE_CHECKING:
    from . import backends, data, losses, nn, onnx, ops, rnn, testing
    from .errors import BackendError, LayoutError, LengthsError, PadlessError, StateError
    from .packed import Packed, pack
    from .recurrent.decoding import decode
    from .recurrent.scanning import scan
    from .report import Waste, waste
    from .swap.accelerating import accelerate, restore
    from .swap.installing import install, uninstall
    from .watching import Watch, watch

__all__ = [
    "BackendError",
    "LayoutError",
    "LengthsError",
    "Packed",
    "PadlessError",
    "StateError",
    "Waste",
    "Watch",
    "__version__",
    "accelerate",
    "backends",
    "data",
    "decode",
    "install",
    "losses",
    "nn",
    "onnx",
    "ops",
    "pack",
    "restore",
    "rnn",
    "scan",
    "testing",
    "uninstall",
    "waste",
    "watch",
]

__version__ = "0.1.0"

_HOMES = {
    "BackendError": "errors",
    "LayoutError": "errors",
    "LengthsError": "errors",
    "Packed": "packed",
    "PadlessError": "errors",
    "StateError": "errors",
    "Waste": "report",
    "Watch": "watching",
    "accelerate": "swap.accelerating",
    "backends": "backends",
    "data": "data",
    "decode": "recurrent.decoding",
    "install": "swap.installing",
    "losses": "losses",
    "nn": "nn",
    "onnx": "onnx",
    "ops": "ops",
    "pack": "packed",
    "restore": "swap.accelerating",
    "rnn": "rnn",
    "scan": "recurrent.scanning",
    "testing": "testing",
    "uninstall": "swap.installing",
    "waste": "report",
    "watch": "watching",
}  # name -> the module that defines it, or the module itself
_LAYERS = {"Conv1d", "CRF", "GRU", "LSTM", "LockedDropout", "RNN", "Recurrent"}  # of padless.nn


def _hint(name: str) -> str:
    if name.startswith("_"):
        return ""
    if name in _LAYERS:
        return f"; did you mean 'padless.nn.{name}'?"
    from .options import near

    return near(name, __all__)


__getattr__, __dir__ = lazy(__name__, _HOMES, _hint)
