"""Arithmetic, comparisons and logic of `Packed` with batches of equal lengths and with numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ..errors import LengthsError
from ..layout.layout import Layout

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Arithmetic"]


class Arithmetic:
    """Base class with the operators of `Packed`, except `==`, which is identity."""

    __slots__ = ()

    if TYPE_CHECKING:
        _data: Tensor
        _layout: Layout

        @classmethod
        def _of(cls, data: Tensor, layout: Layout) -> Self: ...

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Arithmetic of a tensor with a batch, which a compiled program calls as methods of the tensor.

        Other functions of torch raise TypeError.
        """
        key = func.__name__ if isinstance(func, FunctionType) else func
        function, is_reflected = _TENSOR_OPERATORS.get(key, (None, False))
        if function is None or kwargs or len(args) != 2:
            raise TypeError(
                f"{func.__name__} takes tensors, not a Packed: apply it to the rows, packed.map(lambda rows: ...); "
                "for arithmetic use the operators +, -, * and so on; padless.ops has operations on each sequence"
            )
        left, right = (args[1], args[0]) if is_reflected else args
        if isinstance(left, cls):
            return left._combined(right, function)
        return right._combined(left, lambda rows, other: function(other, rows))

    def _combined(self, other: Any, function: Callable[[Any, Any], Tensor]) -> Self:
        """`function` of the rows of both batches, which broadcast like two tensors of the shapes of a row."""
        if isinstance(other, type(self)):
            _check_equal(self._layout, other._layout)
            dim = max(self._data.dim(), other._data.dim())
            return self._of(function(_aligned(self._data, dim), _aligned(other._data, dim)), self._layout)
        if isinstance(other, Tensor) and other.dim() > 0:
            raise TypeError(
                f"arithmetic of a Packed needs a Packed of equal lengths or a number, "
                f"got a tensor of shape {tuple(other.shape)}: use .map(lambda rows: ...)"
            )
        if isinstance(other, (int, float, complex, np.number, np.bool_, Tensor)):
            return self._of(function(self._data, other), self._layout)
        return NotImplemented

    def __add__(self, other: Any) -> Self:
        return self._combined(other, operator.add)

    def __radd__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left + rows)

    def __sub__(self, other: Any) -> Self:
        return self._combined(other, operator.sub)

    def __rsub__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left - rows)

    def __mul__(self, other: Any) -> Self:
        return self._combined(other, operator.mul)

    def __rmul__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left * rows)

    def __truediv__(self, other: Any) -> Self:
        return self._combined(other, operator.truediv)

    def __rtruediv__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left / rows)

    def __floordiv__(self, other: Any) -> Self:
        return self._combined(other, operator.floordiv)

    def __rfloordiv__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left // rows)

    def __mod__(self, other: Any) -> Self:
        return self._combined(other, operator.mod)

    def __rmod__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left % rows)

    def __pow__(self, other: Any) -> Self:
        return self._combined(other, operator.pow)

    def __rpow__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left**rows)

    def __lt__(self, other: Any) -> Self:
        return self._combined(other, operator.lt)

    def __le__(self, other: Any) -> Self:
        return self._combined(other, operator.le)

    def __gt__(self, other: Any) -> Self:
        return self._combined(other, operator.gt)

    def __ge__(self, other: Any) -> Self:
        return self._combined(other, operator.ge)

    def __and__(self, other: Any) -> Self:
        return self._combined(other, operator.and_)

    def __rand__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left & rows)

    def __or__(self, other: Any) -> Self:
        return self._combined(other, operator.or_)

    def __ror__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left | rows)

    def __xor__(self, other: Any) -> Self:
        return self._combined(other, operator.xor)

    def __rxor__(self, other: Any) -> Self:
        return self._combined(other, lambda rows, left: left ^ rows)

    def __invert__(self) -> Self:
        return self._of(~self._data, self._layout)

    def __neg__(self) -> Self:
        return self._of(-self._data, self._layout)

    def __pos__(self) -> Self:
        return self._of(+self._data, self._layout)

    def __abs__(self) -> Self:
        return self._of(abs(self._data), self._layout)


# For each method of a tensor, the operator that it computes and whether its operands are reversed. Keys are the methods
# and their names, because Dynamo cannot look up a Python function in a dictionary.
_TENSOR_OPERATORS: dict[Any, tuple[Callable[[Any, Any], Any], bool]] = {
    key: (function, name.startswith("__r"))
    for function, names in {
        operator.add: ("add", "__add__", "__radd__"),
        operator.sub: ("sub", "__sub__", "__rsub__"),
        operator.mul: ("mul", "__mul__", "__rmul__"),
        operator.truediv: ("div", "__truediv__", "__rdiv__", "__rtruediv__"),
        operator.floordiv: ("floor_divide", "__floordiv__", "__rfloordiv__"),
        operator.mod: ("remainder", "__mod__", "__rmod__"),
        operator.pow: ("pow", "__pow__", "__rpow__"),
        operator.lt: ("lt", "__lt__"),
        operator.le: ("le", "__le__"),
        operator.gt: ("gt", "__gt__"),
        operator.ge: ("ge", "__ge__"),
        operator.and_: ("bitwise_and", "__and__", "__rand__"),
        operator.or_: ("bitwise_or", "__or__", "__ror__"),
        operator.xor: ("bitwise_xor", "__xor__", "__rxor__"),
    }.items()
    for name in names
    for key in (name, getattr(Tensor, name))
}


def _check_equal(left: Layout, right: Layout) -> None:
    """Raise LengthsError unless both layouts have the same lengths."""
    if left.agrees_with(right):
        return
    if left.batch != right.batch:
        raise LengthsError(f"lengths differ: {left.batch} sequences on the left, {right.batch} on the right")
    i = int((left.lengths != right.lengths).nonzero()[0, 0])
    raise LengthsError(
        f"lengths differ: sequence {i} has {int(left.lengths[i])} rows on the left, "
        f"{int(right.lengths[i])} on the right"
    )


def _aligned(data: Tensor, dim: int) -> Tensor:
    """`data` with `dim` dimensions: ones are inserted after the first dimension.

    Without them torch would broadcast rows along features if N happens to equal the width.
    """
    return data if data.dim() == dim else data[(slice(None), *[None] * (dim - data.dim()))]
