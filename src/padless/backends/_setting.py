"""Settings of the process that a call changes from now on and a `with` statement for a block: `use`, `recompute`."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

__all__ = ["Choice", "Setting"]

T = TypeVar("T")
Self = TypeVar("Self", bound="Choice[Any]")

_WITHDRAWABLE = 4  # calls of a block that are kept apart, because their objects may still open blocks


class _Block(Generic[T]):
    """A block and the calls made in it, the last of which counts."""

    def __init__(self, value: T) -> None:
        self.value = value
        self.calls: list[Choice[T]] = []

    def latest(self) -> T:
        last = self.calls[-1:]  # in one step: another thread may withdraw a call
        return last[0].value if last else self.value


class Setting(Generic[T]):
    """A value for the whole process: that of the last call in the block that was entered last.

    Blocks may end in any order: each takes away its own value and those of the calls made in it. Threads may change a
    setting at the same time. Nothing is locked, because Dynamo traces these changes: lists change in one step, and
    whoever publishes a value then looks whether it has changed meanwhile.
    """

    def __init__(self, default: T) -> None:
        self.now = default
        self._blocks = [_Block(default)]  # the first one is the process

    def call(self, choice: Choice[T]) -> _Block[T]:
        """Make this choice the latest of the innermost block, which is returned."""
        block = self._blocks[-1]
        block.calls.append(choice)
        if len(block.calls) > _WITHDRAWABLE:
            block.value = block.calls.pop(0).value
        self._publish()
        return block

    def withdraw(self, choice: Choice[T], block: _Block[T]) -> None:
        """Take back a call, if it still is among those of `block`."""
        if choice in block.calls:
            block.calls.remove(choice)
        self._publish()

    def enter(self, value: T) -> _Block[T]:
        """A new block with this value."""
        block = _Block(value)
        self._blocks.append(block)
        self._publish()
        return block

    def leave(self, block: _Block[T]) -> None:
        """End a block, the innermost or another."""
        self._blocks.remove(block)
        self._publish()

    def _publish(self) -> None:
        while self.now != (latest := self._blocks[-1].latest()):
            self.now = latest


class Choice(Generic[T]):
    """A value for a setting: made by a call, which becomes a block when the object is entered."""

    def __init__(self, setting: Setting[T], value: T) -> None:
        self.value = value
        self._setting = setting
        self._entered: list[_Block[T]] = []
        self._called_in: _Block[T] | None = setting.call(self)

    def _withdraw(self) -> None:
        if self._called_in is not None:
            self._setting.withdraw(self, self._called_in)
            self._called_in = None

    def __enter__(self: Self) -> Self:
        self._withdraw()
        self._entered.append(self._setting.enter(self.value))
        return self

    def __exit__(self, *exception: object) -> None:
        if self._entered:
            self._setting.leave(self._entered.pop())
        else:  # never entered, as with `ExitStack.push`
            self._withdraw()
