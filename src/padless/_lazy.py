"""Packages whose public names are loaded when they are first used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

__all__ = ["lazy"]


def lazy(
    package: str, homes: dict[str, str], hint: Callable[[str], str] = lambda name: ""
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """`__getattr__` and `__dir__` of a package; `homes` has the module inside of it that defines each public name.

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
