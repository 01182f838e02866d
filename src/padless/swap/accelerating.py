"""`accelerate` and `restore`: turn torch's recurrent layers inside a model into padless ones, and back."""

from __future__ import annotations

import warnings
from typing import TypeVar

import torch

from ..nn import GRU, LSTM, RNN

__all__ = ["accelerate", "restore"]

Model = TypeVar("Model", bound=torch.nn.Module)

_TWINS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.RNN: RNN,
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
}
_ORIGINALS = {twin: original for original, twin in _TWINS.items()}


def accelerate(model: Model) -> Model:
    """The same model, whose torch RNN, LSTM and GRU layers now run on padless.

    The layers stay the same objects: only their class changes, so parameters, optimizers, hooks, training
    mode, attributes and every reference held elsewhere stay as they are. `restore` undoes it.

    `torch.ao.quantization.quantize_dynamic` finds layers by their exact class, so it skips accelerated ones in
    silence: call `restore(model)` first, quantize, and leave the quantized layers to torch.

    Args:
        model: any module; itself a recurrent layer, or with such layers anywhere inside.

    Warns:
        UserWarning: once, naming the layers that are left as they are because they are no plain torch
            layers (a subclass of the user's, a quantized, scripted or parametrized layer).

    >>> model = torch.nn.Sequential(torch.nn.LSTM(3, 4))
    >>> accelerate(model)[0].__class__.__module__
    'padless.nn.recurrent'
    """
    left = []
    for path, module in model.named_modules():
        twin = _TWINS.get(type(module))
        if twin is not None:
            module.__class__ = twin  # pyright: ignore[reportAttributeAccessIssue]
        elif _is_foreign_layer(module):
            left.append(
                f"{path or '(the model itself)'}: {type(module).__module__}.{type(module).__qualname__}"
            )
    if left:
        warnings.warn(
            f"padless.accelerate left {len(left)} recurrent layer(s) as they are, for they are no plain "
            f"torch.nn layers: {'; '.join(left)}",
            stacklevel=2,
        )
    return model


def restore(model: Model) -> Model:
    """The same model, whose padless RNN, LSTM and GRU layers are torch's own again.

    >>> type(restore(accelerate(torch.nn.GRU(3, 4)))) is torch.nn.GRU
    True
    """
    for module in model.modules():
        original = _ORIGINALS.get(type(module))
        if original is not None:
            module.__class__ = original
    return model


def _is_foreign_layer(module: torch.nn.Module) -> bool:
    if isinstance(module, (RNN, LSTM, GRU)):
        return False  # padless already
    if isinstance(module, torch.nn.RNNBase):
        return True
    if isinstance(module, torch.jit.ScriptModule):
        return module.original_name in {"RNN", "LSTM", "GRU"}
    return type(module).__module__.startswith("torch.ao.nn") and type(module).__name__ in {
        "RNN",
        "LSTM",
        "GRU",
    }
