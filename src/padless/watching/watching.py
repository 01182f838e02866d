"""`watch`: counts rows and cells of the batches of any loader while a training loop uses it."""

from __future__ import annotations

import types
from array import array
from collections.abc import Callable, Iterator
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Any

from ..errors import PadlessError
from ..report import BatchWaste, Waste

if TYPE_CHECKING:
    from .batch_lengths import BatchReader

__all__ = ["Watch", "watch"]


def watch(
    loader: Any,
    *,
    lengths: Callable[[Any], Any] | None = None,
    report: Callable[[str], object] | None = print,
) -> Watch:
    """A context in which every batch that `loader` gives is counted, and passed on as it is.

    The loop stays as it was, `for batch in loader`, wherever it runs; epochs add up. Workers, samplers and the order
    of the data are not touched. When the context ends, also by an exception, the loader is as it was before.

    How the lengths of a batch are known, in this order:

    - `lengths`, where it is given;
    - a `Packed`, a `PackedSequence` or a jagged nested tensor in the batch;
    - `"attention_mask"` `(B, T)`, or whole numbers named `"lengths"` in a dict, named tuple or dataclass;
    - whole numbers `(B,)` beside a tensor `(B, T, *)` or `(T, B, *)` that beyond these lengths has nothing but padding.

    What is counted as computed is the grid that the batch holds, padding up to a fixed length included; where it
    holds none, a grid padded to the longest sequence.

    Args:
        loader: a `DataLoader` or any other object of a Python class that can be iterated.
        lengths: a function of a batch that gives its lengths `(B,)`, of any kind that `waste` takes.
        report: called with a text of one line at the end; None for nobody.

    Returns:
        `Watch`: `.waste` has the numbers, in the midst of things too.

    Raises:
        LengthsError: (while iterating) lengths cannot be known, or those of two kinds contradict each other.
        TypeError: the loader cannot be watched in place, for its class is not written in Python.

    >>> import padless, torch
    >>> sequences = [torch.ones(n) for n in (4, 6, 8, 5)]
    >>> loader = torch.utils.data.DataLoader(sequences, batch_size=2, collate_fn=padless.pack)
    >>> with padless.watch(loader):
    ...     for batch in loader:
    ...         pass
    padless.watch: padded, they would be 23 rows of 28 cells: 17.9 % wasted, 4 sequences in 2 batches
    (lengths: batch, a Packed)
    """
    from .batch_lengths import BatchReader

    if not hasattr(type(loader), "__iter__"):
        raise TypeError(f"watch takes a loader, something to iterate over, got {type(loader).__name__}")
    return Watch(loader, BatchReader(lengths), report)


class Watch:
    """A loader that is watched: a context, and what it has counted so far; `str` gives the report.

    A loader whose class is not written in Python, a list say, is watched by iterating over the watch instead.

    >>> import padless, torch
    >>> watched = padless.watch([padless.pack([torch.ones(n) for n in (4, 6, 8, 5)])])
    >>> for batch in watched:
    ...     pass
    >>> watched.waste.rows, watched.waste.cells
    (23, 32)
    """

    def __init__(self, loader: Any, reader: BatchReader, report: Callable[[str], object] | None) -> None:
        self._loader = loader
        self._reader = reader
        self._report = report
        self._class: type | None = None  # the loader's own, while it is watched in place
        self._numbers = [array("q") for _ in fields(BatchWaste)]  # millions of batches fit

    def __enter__(self) -> Watch:
        own = type(self._loader)
        if hasattr(own, _MARK):
            raise PadlessError(f"watch: this {own.__name__} is watched already")
        try:
            self._loader.__class__ = _watched_class(own, self)
        except TypeError:
            raise TypeError(
                f"watch: {own.__name__} is not written in Python, so its batches cannot be seen in place; "
                "iterate over the watch itself: for batch in padless.watch(...)"
            ) from None
        self._class = own
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._loader.__class__ = self._class
        self._class = None
        if self._report is not None and (self._reader.batches or kind is None):
            self._report(str(self))

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        return batches if self._class is not None else _Counted(batches, self.see)

    @property
    def waste(self) -> Waste:
        """The numbers of all batches so far."""
        return Waste.of(BatchWaste(*numbers) for numbers in zip(*self._numbers, strict=True))

    def see(self, batch: Any) -> None:
        """Count one batch, which some other way than iteration has brought here.

        Raises:
            LengthsError: its lengths cannot be known.
        """
        for column, number in zip(self._numbers, astuple(self._reader(batch)), strict=True):
            column.append(number)

    def __str__(self) -> str:
        if not self._reader.batches:
            return "padless.watch: no batch was seen"
        would = "" if self._reader.is_padded else "padded, they would be "
        return f"padless.watch: {would}{self.waste} (lengths: {self._reader.how})"


_MARK = "_padless_watch"


class _Counted:
    """An iterator that shows every batch to `see`; in all else it is the loader's own."""

    def __init__(self, batches: Iterator[Any], see: Callable[[Any], None]) -> None:
        self._batches = batches
        self._see = see

    def __iter__(self) -> _Counted:
        return self

    def __next__(self) -> Any:
        batch = next(self._batches)
        self._see(batch)
        return batch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batches, name)


def _watched_class(own: type, watch: Watch) -> type:
    """A subclass with nothing new but `__iter__`; a loader may change its class to it and back."""

    def see(batch: Any) -> None:
        if watch._class is not None:  # an iterator may outlive the context
            watch.see(batch)

    def batches(self: Any) -> Iterator[Any]:
        found = own.__iter__(self)
        return _Counted(found, see) if self is watch._loader else found  # a copy of the loader is not watched

    names = {"__iter__": batches, "__slots__": (), "__module__": own.__module__, _MARK: True}
    return types.new_class(own.__name__, (own,), exec_body=lambda body: body.update(names))
