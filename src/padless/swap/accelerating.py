"""`accelerate` and `restore`: turn torch's recurrent layers inside a model into padless ones, and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from types import CodeType
from typing import Any, SupportsIndex, TypeVar

import torch

from ..nn import GRU, LSTM, RNN
from ..options import warn

__all__ = ["accelerate", "restore"]

Model = TypeVar("Model", bound=torch.nn.Module)

_TWINS: dict[type[torch.nn.Module], type[torch.nn.Module]] = {
    torch.nn.RNN: RNN,
    torch.nn.LSTM: LSTM,
    torch.nn.GRU: GRU,
}
_ORIGINALS = {twin: original for original, twin in _TWINS.items()}


def accelerate(model: Model) -> Model:
    """The same model, with its torch RNN, LSTM and GRU layers now running on padless.

    The layers stay the same objects: only their class changes, so parameters, optimizers, hooks, training
    mode, attributes and references elsewhere are not affected. `restore` undoes it.

    Your own subclasses are accelerated too if their `forward` calls `super().forward(...)`: that call then runs on
    padless. A subclass with its own computation (or that calls `nn.LSTM.forward` by name) is left unchanged.

    `torch.ao.quantization.quantize_dynamic` finds layers by their exact class, so it silently skips accelerated
    ones: call `restore(model)` first, then quantize; the quantized layers run on torch.

    Args:
        model: a recurrent layer, or any module that contains such layers.

    Raises:
        TypeError: not a module.

    Warns:
        UserWarning: once, naming the layers left unchanged because they are not plain torch layers (a subclass
            with its own computation, a quantized, scripted or parametrized layer).

    >>> model = torch.nn.Sequential(torch.nn.LSTM(3, 4))
    >>> accelerate(model)[0].__class__.__module__
    'padless.nn.recurrent'
    """
    _check_module("accelerate", model)
    layers = list(model.named_modules())
    left = [
        f"{path or '(the model itself)'}: {type(module).__module__}.{type(module).__qualname__}"
        for path, module in layers
        if _twin(type(module)) is None and _is_foreign_layer(module)
    ]
    if left:  # before the first change: a warning may be an error
        warn(
            f"padless.accelerate left {len(left)} recurrent layer(s) unchanged, because they are not plain "
            f"torch.nn layers: {'; '.join(left)}"
        )
    for _, module in layers:
        twin = _twin(type(module))
        if twin is not None:
            module.__class__ = twin  # pyright: ignore[reportAttributeAccessIssue]
    return model


def restore(model: Model) -> Model:
    """The same model, with its padless RNN, LSTM and GRU layers turned back into torch's.

    Layers that were created from `padless.nn` become torch's too.

    Raises:
        TypeError: not a module.

    >>> type(restore(accelerate(torch.nn.GRU(3, 4)))) is torch.nn.GRU
    True
    """
    _check_module("restore", model)
    for module in model.modules():
        original = _original(type(module))
        if original is not None:
            module.__class__ = original
    return model


def _check_module(name: str, model: Any) -> None:
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"{name} takes a torch.nn.Module, got {type(model).__name__}")


# Methods that torch's forward calls but padless's does not: overriding one changes what torch computes.
_OF_TORCHS_FORWARD = ("check_forward_args", "check_hidden_size", "get_expected_hidden_size", "permute_hidden")


def _twin(kind: type[torch.nn.Module]) -> type[torch.nn.Module] | None:
    """The class that runs a layer of class `kind` on padless, or None."""
    if kind in _TWINS:
        return _TWINS[kind]
    base = next(
        (base for base in (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU) if issubclass(kind, base)), None
    )
    if base is None or issubclass(kind, (RNN, LSTM, GRU, torch.jit.ScriptModule)):
        return None
    if kind.__module__.startswith("torch.") or not _leaves_computing_to(base, kind):
        return None
    try:
        return _joined(kind)
    except Exception:  # a user's metaclass rejects the new class
        return None


class _Quiet:
    """Mixin that keeps the user's `__init_subclass__` from running for generated classes."""

    def __init_subclass__(cls, **options: Any) -> None:
        pass


def _leaves_computing_to(base: type, kind: type) -> bool:
    """Whether each `forward` between `kind` and `base` calls the next one by `super()`."""
    for each in kind.__mro__[: kind.__mro__.index(base)]:
        if any(name in vars(each) for name in _OF_TORCHS_FORWARD):
            return False
        if "forward" in vars(each) and not _calls_super(each, "forward", set()):
            return False
    return True


def _calls_super(kind: type, name: str, seen: set[str]) -> bool:
    """Whether the method `name` of `kind` calls `super().forward`, directly or through another method of `kind`."""
    seen.add(name)
    for code in _codes(inspect.unwrap(getattr(vars(kind)[name], "__func__", vars(kind)[name]))):
        if "__class__" in code.co_freevars and "forward" in code.co_names:  # a sign of `super()`
            return True
        others = [other for other in code.co_names if other in vars(kind) and other not in seen]
        if any(_calls_super(kind, other, seen) for other in others):
            return True
    return False


def _codes(function: Any) -> Iterator[CodeType]:
    """The code of a function and of all functions inside it; nothing if it is not written in Python."""
    pending = [getattr(function, "__code__", None)]
    while pending:
        code = pending.pop()
        if isinstance(code, CodeType):
            yield code
            pending += code.co_consts


def _joined(kind: type[torch.nn.Module]) -> type[torch.nn.Module]:
    """A subclass of `kind` and the padless layer, in which `super().forward` in `kind` calls the padless layer.

    There is one per class; it is not kept alive once no layer has it.
    """
    for known in type.__subclasses__(kind):
        if vars(known).get("_padless_original") is kind:
            return known
    base = next(base for base in _TWINS if issubclass(kind, base))
    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "__doc__": kind.__doc__}
    added = {"_padless_original": kind, "__reduce_ex__": _reduce_joined}
    metaclass: Any = type(kind)
    return metaclass(kind.__name__, (_Quiet, kind, _TWINS[base]), {**names, **added})


def _original(kind: type[torch.nn.Module]) -> type[torch.nn.Module] | None:
    """The class whose layers `accelerate` gave the class `kind`, or None."""
    return _ORIGINALS.get(kind) or vars(kind).get("_padless_original")


def _reduce_joined(self: torch.nn.Module, protocol: SupportsIndex) -> str | tuple[Any, ...]:
    """Reduce for pickle and `copy`: the construction of the user's class, which can be imported, and the state."""
    joined: Any = type(self)
    kind = joined._padless_original
    reduced = kind.__reduce_ex__(self, protocol)
    if not isinstance(reduced, tuple):
        return reduced
    make, arguments, *state = reduced
    make, *arguments = (kind if part is joined else part for part in (make, *arguments))
    return _made_joined, (make, *arguments), *state


def _made_joined(make: Callable[..., Any], *arguments: Any) -> Any:
    layer = make(*arguments)
    twin = _twin(type(layer))
    if twin is not None:
        layer.__class__ = twin
    return layer


def _is_foreign_layer(module: torch.nn.Module) -> bool:
    if isinstance(module, (RNN, LSTM, GRU)):
        return False  # already padless
    if isinstance(module, torch.nn.RNNBase):
        return True
    if isinstance(module, torch.jit.ScriptModule):
        return module.original_name in {"RNN", "LSTM", "GRU"}
    return type(module).__module__.startswith("torch.ao.nn") and type(module).__name__ in {
        "RNN",
        "LSTM",
        "GRU",
    }
