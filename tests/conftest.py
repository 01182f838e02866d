"""What every test stands on: the same numbers every time, poisoned memory, and the fixtures they share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator

import hypothesis
import pytest
import torch

import padless

from .ranks_kit import Ranks

# No deadlines: the first call of a torch operator is slow, and the machine may be busy. A run in CI tries the
# same cases every time; a run at a desk goes on looking for new ones.
hypothesis.settings.register_profile("desk", deadline=None, print_blob=True)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "desk")

# Batches in tests are small: a second thread costs more than it brings, and pytest-xdist may use the other cores.
# Processes that tests start use one thread too: with two, on two busy cores, examples/caption.py takes 97 s for 7.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
# Inductor's cache on disk does not know which version of padless a program was compiled with.
_compiled = tempfile.TemporaryDirectory()
os.environ["TORCHINDUCTOR_CACHE_DIR"] = _compiled.name


@pytest.fixture(autouse=True)
def same_numbers_every_time() -> Iterator[None]:
    """Seeds torch, and fills memory that is allocated but not written with NaN, so that reading it shows."""
    torch.manual_seed(0)
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    torch.utils.deterministic.fill_uninitialized_memory = True
    torch.use_deterministic_algorithms(True)  # the filling is part of this mode
    yield
    torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@pytest.fixture(params=padless.backends.available())
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the test once on every backend that this machine has."""
    with padless.backends.use(request.param):
        yield request.param


@pytest.fixture(scope="session")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int], Ranks]]:
    """`ranks(world_size)`: that many real processes joined by gloo, the same ones for the whole session."""
    if not torch.distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    made: dict[int, Ranks] = {}

    def of(world_size: int) -> Ranks:
        if world_size not in made:
            made[world_size] = Ranks(world_size, tmp_path_factory.mktemp("ranks"))
        return made[world_size]

    yield of
    for group in made.values():
        group.close()
