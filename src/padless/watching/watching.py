"""`watch`: counts the rows and cells in the batches of any loader while a training loop uses it."""

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
    """A context manager that counts every batch of `loader` and passes it on unchanged.

    The training loop, `for batch in loader`, does not change, wherever it is; epochs add up. Workers, samplers and the
    order of the data are not affected. When the context ends, even by an exception, the loader is restored.

    The lengths of a batch are taken from the first of these that applies:

    - `lengths`, if given;
    - a `Packed`, a `PackedSequence` or a jagged nested tensor in the batch;
    - `"attention_mask"` `(B, T)`, or whole numbers named `"lengths"` in a dict, named tuple or dataclass;
    - whole numbers `(B,)` next to a tensor `(B, T, *)` or `(T, B, *)` that is only padding beyond these lengths.

    The cells are those of the grid in the batch, including padding up to a fixed length; if there is no grid, those of
    a grid padded to the longest sequence. The grid of given or named lengths is a tensor `(B, T, *)` or `(T, B, *)`
    that is only padding beyond them, or whole numbers `(B, T)` if nothing else in the batch could be the sequences.

    Args:
        loader: a `DataLoader` or any other iterable whose class is written in Python.
        lengths: a function that returns the lengths `(B,)` of a batch, in any form that `waste` accepts.
        report: called with a one-line text at the end; None for no report.

    Returns:
        `Watch`, whose `.waste` has the numbers at any time.

    Raises:
        LengthsError: while iterating: lengths cannot be determined, or no longer fit the grid that they had before.
        TypeError: `lengths` or `report` is not a function, or the loader cannot be watched in place, because its class
            is not written in Python.

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

    if lengths is not None and not callable(lengths):
        raise TypeError(f"watch: lengths must be a function of a batch, got {type(lengths).__name__}")
    if report is not None and not callable(report):
        raise TypeError(
            f"watch: report must be a function of a text, or None for no report, got {type(report).__name__}"
        )
    if not hasattr(type(loader), "__iter__"):
        raise TypeError(f"watch takes an iterable loader, got {type(loader).__name__}")
    return Watch(loader, BatchReader(lengths), report)


class Watch:
    """A watched loader: a context manager with the counts so far; `str` returns the report.

    To watch a loader whose class is not written in Python, such as a list, iterate over the watch instead.

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
        self._class: type | None = None  # the loader's original class, while it is watched in place
        self._numbers = [array("q") for _ in fields(BatchWaste)]  # compact, for millions of batches

    def __enter__(self) -> Watch:
        own = type(self._loader)
        if hasattr(own, _MARK):
            raise PadlessError(f"watch: this {own.__name__} is already watched")
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
        """Count one batch that does not come from iterating.

        Raises:
            LengthsError: its lengths cannot be determined.
        """
        for column, number in zip(self._numbers, astuple(self._reader(batch)), strict=True):
            column.append(number)

    def __str__(self) -> str:
        if not self._reader.batches:
            return "padless.watch: no batches were counted"
        would = "" if self._reader.is_padded else "padded, they would be "
        return f"padless.watch: {would}{self.waste} (lengths: {self._reader.how})"


_MARK = "_padless_watch"


class _Counted:
    """An iterator that passes every batch to `see`; otherwise it behaves like the loader's own."""

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
    """A subclass that only overrides `__iter__`, so that a loader's class can be changed to it and back."""

    def see(batch: Any) -> None:
        if watch._class is not None:  # iterators may outlive the context
            watch.see(batch)

    def batches(self: Any) -> Iterator[Any]:
        found = own.__iter__(self)
        return _Counted(found, see) if self is watch._loader else found  # copies are not watched

    names = {"__iter__": batches, "__slots__": (), "__module__": own.__module__, _MARK: True}
    return types.new_class(own.__name__, (own,), exec_body=lambda body: body.update(names))
