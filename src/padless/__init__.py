"""Variable-length sequences in PyTorch at the cost of their real rows.

Every name is loaded when it is first used, so `import padless` imports neither torch nor numpy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

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
_LAYERS = {
    "CRF", "GRU", "LSTM", "RNN", "Conv1d", "LayerNormGRU", "LayerNormGRUCell", "LayerNormLSTM", "LayerNormLSTMCell",
    "LockedDropout", "Recurrent",
}  # of padless.nn, which would import torch  # fmt: skip


def _hint(name: str) -> str:
    if name.startswith("_"):
        return ""
    if name in _LAYERS:
        return f"; did you mean 'padless.nn.{name}'?"
    from .options import near

    return near(name, __all__)


def _lazy(
    package: str, homes: dict[str, str], hint: Callable[[str], str] = lambda name: ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package; `homes` has the module in it that defines each public name.

    A name whose home has the same name is that module. `hint` returns the end of the error for an unknown name.
    """
    names = vars(sys.modules[package])

    def load(name: str) -> Any:
        home = homes.get(name)
        if home is None:
            # With `name`, Python's traceback does not add its own suggestion to ours.
            raise AttributeError(f"module {package!r} has no attribute {name!r}{hint(name)}", name=name)
        module = import_module(f".{home}", package)
        names[name] = module if home == name else getattr(module, name)
        return names[name]

    return load, lambda: sorted({*names, *homes})


__getattr__, __dir__ = _lazy(__name__, _HOMES, _hint)
