"""Fixtures that every test file may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import padless


@pytest.fixture(params=padless.backends.available())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once on every backend that this machine has."""
    with padless.backends.use(request.param):
        yield request.param
