"""`accelerate` and `restore`: turn torch's recurrent layers inside a model into padless ones, and back."""

from __future__ import annotations

import warnings
from functools import cache
from types import CodeType
from typing import Any, SupportsIndex, TypeVar

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

    Your own subclasses are accelerated too, if their `forward` calls `super().forward(...)`: that call then runs on
    padless. A subclass that computes by itself (or calls `nn.LSTM.forward` by name) is left as it is.

    `torch.ao.quantization.quantize_dynamic` finds layers by their exact class, so it skips accelerated ones in
    silence: call `restore(model)` first, quantize, and leave the quantized layers to torch.

    Args:
        model: any module; itself a recurrent layer, or with such layers anywhere inside.

    Warns:
        UserWarning: once, naming the layers that are left unchanged because they are not plain torch
            layers (a subclass that computes by itself, a quantized, scripted or parametrized layer).

    >>> model = torch.nn.Sequential(torch.nn.LSTM(3, 4))
    >>> accelerate(model)[0].__class__.__module__
    'padless.nn.recurrent'
    """
    left = []
    for path, module in model.named_modules():
        twin = _twin(type(module))
        if twin is not None:
            module.__class__ = twin  # pyright: ignore[reportAttributeAccessIssue]
        elif _is_foreign_layer(module):
            left.append(
                f"{path or '(the model itself)'}: {type(module).__module__}.{type(module).__qualname__}"
            )
    if left:
        warnings.warn(
            f"padless.accelerate left {len(left)} recurrent layer(s) unchanged, because they are not plain "
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


# Methods that torch's forward calls and padless's does not: overriding one changes what torch computes.
_OF_TORCHS_FORWARD = ("check_forward_args", "check_hidden_size", "get_expected_hidden_size", "permute_hidden")


def _twin(kind: type[torch.nn.Module]) -> type[torch.nn.Module] | None:
    """The class that runs a layer of class `kind` on padless; None where there is none."""
    if kind in _TWINS or kind in _ORIGINALS:
        return _TWINS.get(kind)
    base = next(
        (base for base in (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU) if issubclass(kind, base)), None
    )
    if base is None or issubclass(kind, (RNN, LSTM, GRU, torch.jit.ScriptModule)):
        return None
    if not kind.__module__.startswith("torch.") and _leaves_computing_to(base, kind):
        return _joined(kind)
    return None


def _leaves_computing_to(base: type, kind: type) -> bool:
    """Whether each `forward` between `kind` and `base` calls the next one by `super()`."""
    for each in kind.__mro__[: kind.__mro__.index(base)]:
        if any(name in vars(each) for name in _OF_TORCHS_FORWARD):
            return False
        forward = vars(each).get("forward")
        if forward is not None and not _calls_super(getattr(forward, "__code__", None)):
            return False
    return True


def _calls_super(code: Any) -> bool:
    return (
        isinstance(code, CodeType)
        and "__class__" in code.co_freevars  # the compiler's mark of `super()`
        and "forward" in code.co_names
    )


@cache
def _joined(kind: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """A subclass of `kind` and of the padless layer, in which `super().forward` of `kind` is the padless layer's."""
    base = next(base for base in _TWINS if issubclass(kind, base))
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    metaclass: Any = type(kind)
    joined = metaclass(kind.__name__, (kind, _TWINS[base]), {**names, "__reduce_ex__": _reduce_joined})
    _ORIGINALS[joined] = kind
    return joined


def _reduce_joined(self: torch.nn.Module, protocol: SupportsIndex) -> tuple[Any, ...]:
    """What pickle and `copy` keep: the user's class, which can be found by its name, and the state."""
    _, _, *state = torch.nn.Module.__reduce_ex__(self, protocol)
    return _new_joined, (_ORIGINALS[type(self)],), *state


def _new_joined(kind: type[torch.nn.Module]) -> torch.nn.Module:
    joined = _joined(kind)
    return joined.__new__(joined)


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
