from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from padless.backends import _kernels


@pytest.fixture
def each_isa() -> Iterator[list[str]]:
    """The instruction sets to force, one after the other; the one of the session is forced again afterwards."""
    yield _kernels.supported_isas()
    _kernels.force_isa(os.environ.get("PADLESS_ISA"))
