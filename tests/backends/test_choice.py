"""Backends are found, shown and forced, and what is not available is an error that says why."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

import padless
from padless import backends, library
from padless.backends import _kernels, is_forced
from padless.backends._recompute import is_recomputing

from ..nn.layer_kit import by_hand, twins


def test_portable_and_torch_are_everywhere() -> None:
    assert set(backends.available()) >= {"portable", "torch"}
    assert set(backends.available()) <= {"native", "portable", "torch"}


def test_the_first_that_is_available_is_active(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PADLESS_BACKEND", raising=False)
    assert backends.active() == backends.available()[0]


@pytest.mark.parametrize("name", backends.available())
def test_use_forces_a_backend_for_a_block_only(name: str) -> None:
    before = backends.active()
    with backends.use(name):
        assert backends.active() == name
    assert backends.active() == before


def test_use_as_a_call_lasts_until_the_next() -> None:
    with backends.use(backends.active()):  # puts back what the calls below force
        backends.use("torch")
        assert backends.active() == "torch"
        backends.use("portable")
        assert backends.active() == "portable"


def test_blocks_nest_and_exceptions_put_back_what_was() -> None:
    before = backends.active()
    with pytest.raises(KeyError, match="gone"), backends.use("torch"):
        with backends.use("portable"):
            assert backends.active() == "portable"
        assert backends.active() == "torch"
        raise KeyError("gone")
    assert backends.active() == before


def test_one_object_may_serve_two_blocks() -> None:
    before = backends.active()
    choice = backends.use("torch")
    for _ in range(2):
        with choice:
            assert backends.active() == "torch"
        assert backends.active() == before


def test_one_recompute_may_serve_two_blocks() -> None:
    again = backends.recompute()
    with again:
        assert is_recomputing()
    assert not is_recomputing()
    with again:
        assert is_recomputing()
    assert not is_recomputing()


def test_a_block_inside_of_a_block_of_the_same_object_changes_nothing() -> None:
    forced, recomputing = backends.use("torch"), backends.recompute()
    with forced, recomputing:
        with forced, recomputing:
            assert backends.active() == "torch"
        assert backends.active() == "torch"
        assert is_recomputing()
    assert backends.active() != "torch"
    assert not is_recomputing()


def test_a_refused_choice_changes_nothing() -> None:
    with backends.use("torch"):
        with pytest.raises(padless.BackendError):
            backends.use("no such")
        assert backends.active() == "torch"


@pytest.mark.parametrize(
    ("name", "near"), [("portabel", "portable"), ("Torch", "torch"), ("nativ", "native")]
)
def test_unknown_name_is_an_error_with_the_nearest_name(name: str, near: str) -> None:
    with pytest.raises(padless.BackendError, match=f"no backend '{name}'.*did you mean '{near}'"):
        backends.use(name)


def test_unknown_name_like_no_other_lists_the_names() -> None:
    with pytest.raises(padless.BackendError, match="native, portable, torch") as caught:
        backends.use("xyzzy")
    assert "did you mean" not in str(caught.value)


def test_native_that_was_not_built_is_an_error_that_says_why() -> None:
    if "native" in backends.available():
        pytest.skip("native kernels are here")
    with pytest.raises(padless.BackendError, match="'native' is not available here: .+"):
        backends.use("native")


@pytest.mark.parametrize("forced", ["portable", "torch"])
def test_the_forced_backend_is_the_one_that_computes(forced: str) -> None:
    """Seen in the graph: torch's own operators leave nodes of their own cells, padless one of its own."""
    ours, _ = twins("LSTM", 3, 4)
    with backends.use(forced):
        output, _ = ours(by_hand([torch.randn(n, 3) for n in (3, 2)]))
    names, pending, seen = [], [output.data.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            names.append(type(node).__name__)
            pending.extend(parent for parent, _ in node.next_functions)
    assert ("_LayerBackward" in names) == (forced == "portable")
    assert any("Sigmoid" in n for n in names) == (forced == "torch")


SCRIPT = """
import torch, padless
try:
    print(padless.backends.active())
    torch.manual_seed(0)
    print(padless.nn.LSTM(3, 4)(torch.ones(2, 1, 3))[0].sum().item())
except padless.BackendError as error:
    print("BackendError:", error)
"""


def _in_a_process_with(backend: str) -> list[str]:
    environment = os.environ | {"PADLESS_BACKEND": backend}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", backends.available())
def test_environment_forces_a_backend(name: str) -> None:
    active, total = _in_a_process_with(name)
    assert active == name
    torch.manual_seed(0)
    expected = torch.nn.LSTM(3, 4)(torch.ones(2, 1, 3))[0].sum().item()
    assert float(total) == pytest.approx(expected, abs=1e-6)


def test_environment_that_cannot_be_had_is_an_error_that_names_it() -> None:
    (line,) = _in_a_process_with("portabel")
    assert line.startswith("BackendError: PADLESS_BACKEND: there is no backend 'portabel'")
    assert line.endswith("did you mean 'portable'?")


def test_empty_environment_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADLESS_BACKEND", "")
    assert backends.active() == backends.available()[0]


def test_use_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PADLESS_BACKEND", "torch")
    assert backends.active() == "torch"
    with backends.use("portable"):
        assert backends.active() == "portable"


needs_native = pytest.mark.skipif("native" not in backends.available(), reason="no native kernels here")

ISA_SCRIPT = """
import torch, padless
torch.manual_seed(0)
layer, x = padless.nn.LSTM(20, 30), torch.randn(9, 4, 20)
try:
    with torch.no_grad():
        output = layer(x, lengths=[9, 2, 7, 0])[0]
    print(padless.backends.instruction_set(), output.double().abs().sum().item())
except padless.BackendError as error:
    print("BackendError:", error)
"""


def _with_instruction_set(name: str) -> str:
    environment = os.environ | {"PADLESS_ISA": name}
    script = [sys.executable, "-c", ISA_SCRIPT]
    return subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout


@needs_native
@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
def test_the_forced_instruction_set_is_the_one_that_runs(name: str) -> None:
    with torch.no_grad(), backends.use("portable"):
        torch.manual_seed(0)
        layer, x = padless.nn.LSTM(20, 30), torch.randn(9, 4, 20)
        expected = layer(x, lengths=[9, 2, 7, 0])[0].double().abs().sum().item()
    answer = _with_instruction_set(name)
    if answer.startswith("BackendError") and name != "baseline":
        assert f"'{name}' is not available here" in answer  # this processor has no such instructions
        return
    ran, total = answer.split()
    assert ran == name
    assert float(total) == pytest.approx(expected, rel=1e-5)


@needs_native
def test_an_instruction_set_that_cannot_be_had_is_an_error_that_says_what_can() -> None:
    assert "'avx9' is not available here; this machine runs baseline" in _with_instruction_set("avx9")


ROWS_SCRIPT = """
import torch, padless
for _ in range(2):
    try:
        print(padless.pack([torch.ones(3), torch.ones(2)]).pad().sum())
    except padless.BackendError as error:
        print("BackendError:", error)
"""


@needs_native
def test_rows_are_not_copied_otherwise_if_an_instruction_set_cannot_be_had() -> None:
    environment = os.environ | {"PADLESS_ISA": "avx9"}
    script = [sys.executable, "-c", ROWS_SCRIPT]
    answers = subprocess.run(script, env=environment, capture_output=True, text=True, check=True).stdout
    assert answers.count("BackendError: instruction set 'avx9' is not available here") == 2


@needs_native
def test_the_library_is_shared_only_once_its_instruction_set_is_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared, force = [], library._force

    def noted(loaded: Any, name: str | None) -> None:
        shared.append(library._library)
        force(loaded, name)

    before = _kernels.isa()
    monkeypatch.setattr(library, "_force", noted)
    monkeypatch.setattr(library, "_library", None)
    monkeypatch.setenv("PADLESS_ISA", "baseline")
    try:
        assert _kernels.isa() == "baseline"
        assert shared == [None]
    finally:
        library.force_isa(before)


@pytest.fixture
def unforced() -> Iterator[None]:
    """Takes back what the calls of a test force."""
    with backends.use(None):
        yield


def test_a_block_forces_its_own_backend_even_if_another_was_chosen_since(unforced: None) -> None:
    first = backends.use("portable")
    second = backends.use("torch")
    with first:
        assert backends.active() == "portable"
    assert backends.active() == "torch"
    with second:
        assert backends.active() == "torch"
    assert not is_forced()


def test_a_call_stays_in_force_after_the_block_of_an_older_object(unforced: None) -> None:
    older = backends.use("portable")
    backends.use("torch")
    with older:
        pass
    assert backends.active() == "torch"


@pytest.mark.parametrize("ends_first", [0, 1])
def test_blocks_may_end_in_any_order(ends_first: int) -> None:
    """As those of two threads or two generators do."""
    blocks = [(backends.use(name), backends.recompute()) for name in ("portable", "torch")]
    for choice, again in blocks:
        choice.__enter__()
        again.__enter__()
    assert backends.active() == "torch"
    for at, left in ((ends_first, ["torch", "portable"][ends_first]), (1 - ends_first, None)):
        assert is_recomputing()
        for each in blocks[at]:
            each.__exit__()
        assert left in (None, backends.active())
    assert not is_recomputing()
    assert not is_forced()


def test_a_call_in_a_block_lasts_until_the_end_of_that_block(unforced: None) -> None:
    outer, inner = backends.use("torch"), backends.use("torch")
    with outer:
        inner.__enter__()
        backends.use("portable")
    assert backends.active() == "portable"
    inner.__exit__()
    assert not is_forced()


def test_an_object_that_is_only_left_takes_back_its_call() -> None:
    with contextlib.ExitStack() as stack:
        stack.push(backends.use("torch"))
        assert backends.active() == "torch"
    assert not is_forced()


def test_calls_do_not_accumulate(unforced: None) -> None:
    kept = [weakref.ref(backends.use("torch")) for _ in range(100)]
    assert sum(call() is not None for call in kept) < 10


def test_threads_that_choose_at_the_same_time_leave_nothing_behind() -> None:
    def choose(name: str) -> None:
        for _ in range(500):
            with backends.use(name), backends.recompute():
                assert is_recomputing()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(choose, ["portable", "torch"] * 2))
    finally:
        sys.setswitchinterval(before)
    assert not is_recomputing()
    assert not is_forced()


def test_compiled_calls_and_blocks_leave_what_eager_ones_do(unforced: None) -> None:
    def function(x: torch.Tensor) -> torch.Tensor:
        backends.use("torch")
        with backends.use("portable"), backends.recompute():
            return x + 1

    torch.compile(function, fullgraph=True, backend="eager")(torch.zeros(2))
    assert backends.active() == "torch"
    assert not is_recomputing()
