"""Lets `torch.compile` and strict `torch.export` trace the layers without any setting by the user.

Dynamo refuses instances of torch's RNN, LSTM and GRU, including subclasses, unless `torch._dynamo.config.allow_rnn` is
on. With it on, Dynamo would also trace torch's own layers, whose LSTM then fails in backward; so their `forward` is
marked to run outside the graph, as before. Importing Dynamo takes two seconds, so all this is done when something else
imports it. See docs/decisions/0027-kernels-as-operators.md.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch

__all__ = ["allow_rnn"]

_CONFIG = "torch._dynamo.config"


def allow_rnn() -> None:
    """Set the option now, or as soon as Dynamo's configuration is imported."""
    config: Any = sys.modules.get(_CONFIG)
    if config is not None:
        if not config.allow_rnn:  # otherwise the user wants torch's layers to be traced
            config.allow_rnn = True
            for kind in (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU):
                kind.forward._torchdynamo_disable = True  # type: ignore[attr-defined]
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds Dynamo's configuration as Python would, once, and sets the option after its import."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _CONFIG:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader)
        return spec


class _Loader(Loader):
    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        allow_rnn()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # source, resources
