"""What carries a `Packed` without knowing it: pickle, DataLoader, pytrees, the compiler, DDP."""

from __future__ import annotations

import copy
import dataclasses
import io
import operator
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from padless import LengthsError, Packed, pack

LENGTHS = [3, 0, 1, 2]


def packed_of(data: torch.Tensor | None = None) -> Packed:
    return Packed(torch.arange(12.0).reshape(6, 2) if data is None else data, LENGTHS)


def assert_equal(got: Packed, expected: Packed) -> None:
    assert type(got) is Packed
    assert torch.equal(got.data, expected.data)
    assert torch.equal(got.lengths, expected.lengths)


# --- pickle and copies ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle_gives_it_back(protocol: int) -> None:
    assert_equal(pickle.loads(pickle.dumps(packed_of(), protocol)), packed_of())


def test_a_forged_pickle_is_refused() -> None:
    forged = Packed._of(torch.zeros(2), packed_of()._layout)
    with pytest.raises(LengthsError, match=r"^lengths sum to 6, but the data have 2 rows$"):
        pickle.loads(pickle.dumps(forged))


def test_deepcopy_copies_the_data_and_copy_shares_them() -> None:
    packed = packed_of()
    for copied, shares in ((copy.copy(packed), True), (copy.deepcopy(packed), False)):
        assert_equal(copied, packed)
        assert (copied.data.data_ptr() == packed.data.data_ptr()) is shares


def test_deepcopy_keeps_shared_data_shared() -> None:
    packed = packed_of()
    a, b = copy.deepcopy([packed, packed.data])
    assert a.data is b  # pyright: ignore[reportAttributeAccessIssue]


def test_torch_load_takes_it_as_weights_only() -> None:
    file = io.BytesIO()
    torch.save({"batch": packed_of(), "empty": pack([])}, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=True)
    assert_equal(loaded["batch"], packed_of())
    assert_equal(loaded["empty"], pack([]))


def test_a_process_that_only_imported_padless_can_load_it(tmp_path: Path) -> None:
    torch.save(packed_of(), tmp_path / "batch.pt")
    code = "import padless, torch, sys; padless.Packed; print(torch.load(sys.argv[1], weights_only=True))"
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "batch.pt")], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"{packed_of()!r}\n"


# --- DataLoader -----------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_loader_delivers_what_collate_packs(workers: int) -> None:
    dataset: Any = [torch.full((n,), float(n)) for n in [3, 0, 1, 2, 5]]
    loader = DataLoader(dataset, batch_size=2, collate_fn=pack, num_workers=workers)
    batches = list(loader)
    assert [batch.lengths.tolist() for batch in batches] == [[3, 0], [1, 2], [5]]
    assert torch.equal(torch.cat([batch.data for batch in batches]), torch.cat(dataset))


def test_a_data_loader_pins_it_inside_its_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch.utils.data._utils.pin_memory import pin_memory

    # Marks what was asked to be pinned.
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self + 100)
    batch: Any = pin_memory({"x": packed_of(), "y": (packed_of(), 3)})
    assert_equal(batch["x"], packed_of() + 100)
    assert_equal(batch["y"][0], packed_of() + 100)


# --- pytrees --------------------------------------------------------------------------------------


def test_the_data_are_its_only_leaf() -> None:
    packed = packed_of()
    leaves, spec = pytree.tree_flatten({"a": packed, "b": 1})
    assert leaves[0] is packed.data and leaves[1:] == [1]
    assert_equal(pytree.tree_unflatten(leaves, spec)["a"], packed)


def test_a_tree_map_keeps_the_lengths() -> None:
    assert_equal(pytree.tree_map(lambda data: data + 1, packed_of()), packed_of() + 1)


@pytest.mark.parametrize("leaf", [None, "name", 3, object()])
def test_a_tree_map_may_put_anything_in_place_of_the_data(leaf: Any) -> None:
    mapped = pytree.tree_map(lambda data: leaf, packed_of())
    assert mapped.data is leaf
    assert repr(mapped) == f"Packed(B=4, N=6, T=3, fill=0.50, data={leaf!r})"


def test_tree_paths_name_the_data() -> None:
    ((path, _),), _ = pytree.tree_flatten_with_path([packed_of()])
    assert pytree.keystr(path) == "[0].data"


def test_tree_specs_are_equal_where_the_lengths_are() -> None:
    spec = pytree.tree_structure(packed_of())
    assert spec == pytree.tree_structure(2 * packed_of(torch.zeros(6)))
    assert spec != pytree.tree_structure(Packed(torch.zeros(6), [3, 3]))


def test_a_tree_spec_passes_through_json() -> None:
    spec = pytree.tree_structure([packed_of()])
    again = pytree.treespec_loads(pytree.treespec_dumps(spec))
    assert_equal(pytree.tree_unflatten([packed_of().data], again)[0], packed_of())


def test_function_transforms_give_gradients_of_the_same_lengths() -> None:
    packed = packed_of()
    gradient = torch.func.grad(lambda p: (p.map(torch.square).pad() + p[[1, 2]].data.sum()).sum())(packed)
    leaf = packed.data.clone().requires_grad_()
    again = packed_of(leaf)
    (again.map(torch.square).pad() + again[[1, 2]].data.sum()).sum().backward()
    assert leaf.grad is not None
    assert_equal(gradient, packed_of(leaf.grad))


# --- torch.compile --------------------------------------------------------------------------------


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


def mixed(packed: Packed) -> Packed:
    hidden = packed.map(torch.tanh)
    return -(2 * hidden + packed) / 3


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("compiler", ["eager", "aot_eager"])
def test_map_and_arithmetic_compile_as_one_graph(compiler: str) -> None:
    compiled = torch.compile(mixed, backend=compiler, fullgraph=True)
    for lengths in ([3, 0, 1, 2], [5], [2, 2, 9], [1, 1, 1, 4]):
        data = torch.randn(sum(lengths), 2, requires_grad=True)
        packed = Packed(data, lengths)
        got, expected = compiled(packed), mixed(packed)
        assert_equal(got, expected)
        ours, theirs = (torch.autograd.grad(p.data.sum(), data)[0] for p in (got, expected))
        torch.testing.assert_close(ours, theirs)


@pytest.mark.usefixtures("fresh_compiler")
def test_views_compile_as_one_graph() -> None:
    def function(packed: Packed) -> Any:
        return packed.unpack(), len(packed) * packed, packed.detach().to(torch.float64)

    packed = packed_of()
    got = torch.compile(function, backend="eager", fullgraph=True)(packed)
    for a, b in zip(pytree.tree_leaves(got), pytree.tree_leaves(function(packed)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.usefixtures("fresh_compiler")
def test_moving_rows_compiles_with_breaks_in_the_graph() -> None:
    def function(packed: Packed) -> Any:
        rows = packed * 2
        return rows.pad(), rows.mask(), rows[0], rows[[2, 0]].data, rows.to_packed_sequence().data

    packed = packed_of()
    got = torch.compile(function, backend="eager")(packed)
    assert all(map(torch.equal, got, function(packed)))


@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_arithmetic_still_refuses_other_lengths() -> None:
    compiled = torch.compile(lambda a, b: a + b, backend="eager", fullgraph=True)
    packed = packed_of()
    assert_equal(compiled(packed, 2 * packed), 3 * packed)
    assert_equal(compiled(packed, packed_of()), 2 * packed)
    with pytest.raises(RuntimeError, match="two batches have different lengths"):
        compiled(packed, Packed(packed.data, [2, 1, 1, 2]))


# --- DDP ------------------------------------------------------------------------------------------


@pytest.fixture
def one_rank(tmp_path: Path) -> Iterator[None]:
    if not torch.distributed.is_available():
        pytest.skip("torch was built without torch.distributed")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1
    )
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
@pytest.mark.parametrize("find_unused_parameters", [False, True])
def test_ddp_takes_and_returns_it(find_unused_parameters: bool) -> None:
    class Rows(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(2, 3)

        def forward(self, packed: Packed) -> Packed:
            return packed.map(self.linear)

    model = torch.nn.parallel.DistributedDataParallel(Rows(), find_unused_parameters=find_unused_parameters)
    for _ in range(2):
        model.zero_grad()
        output = model(packed_of())
        output.data.sum().backward()
        assert_equal(output, packed_of().map(model.module.linear))
        torch.testing.assert_close(model.module.linear.weight.grad, packed_of().data.sum(0).expand(3, 2))


@pytest.mark.parametrize("changes", [{}, {"data": torch.ones(6)}, {"lengths": [6]}])
def test_its_fields_are_those_that_it_is_made_of(changes: dict[str, Any]) -> None:
    # FSDP with mixed precision takes apart every dataclass among the inputs, and puts it together again.
    fields = {field.name: getattr(packed_of(), field.name) for field in dataclasses.fields(Packed)}
    assert list(fields) == ["data", "lengths"]
    assert_equal(dataclasses.replace(packed_of(), **changes), Packed(**{**fields, **changes}))


# --- host only ------------------------------------------------------------------------------------


def test_reading_one_sequence_touches_no_device_data(monkeypatch: pytest.MonkeyPatch) -> None:
    # The meta device has no values, so anything that read lengths back from the device would fail on it.
    packed = packed_of().to("meta")
    assert [sequence.shape[0] for sequence in packed] == LENGTHS
    assert [packed[i].shape[0] for i in range(4)] == LENGTHS
    assert packed[1:3].data.shape == packed[[1, 2]].data.shape == (1, 2)
    assert packed.to_packed_sequence().batch_sizes.tolist() == [3, 2, 1]


@pytest.mark.parametrize("name", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow"])
def test_compiled_arithmetic_takes_tensors_without_dimensions_on_either_side(name: str) -> None:
    function = getattr(operator, name)

    def compute(rows: torch.Tensor, lengths: torch.Tensor, number: torch.Tensor) -> list[torch.Tensor]:
        packed = pack(rows, lengths)
        return [function(packed, number).data, function(number, packed).data]

    given = torch.rand(2, 3) + 1, torch.tensor([3, 1]), torch.tensor(2.0)
    compiled = torch.compile(compute, fullgraph=True, backend="aot_eager")
    for got, expected in zip(compiled(*given), compute(*given), strict=True):
        assert torch.equal(got, expected)


def test_compiled_programs_may_ask_a_batch_for_attributes_that_it_lacks() -> None:
    def compute(rows: torch.Tensor) -> torch.Tensor:
        packed = Packed(rows, [2, 1])
        return packed.data * getattr(packed, "factor", 2) + hasattr(packed, "sum")

    rows = torch.ones(3)
    assert torch.equal(torch.compile(compute, fullgraph=True, backend="aot_eager")(rows), 2 * rows)
