"""What code in the wild does with recurrent layers, done to torch's and to padless's alike."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils import parametrize, prune
from torch.nn.utils.rnn import (
    PackedSequence,
    pack_padded_sequence,
    pack_sequence,
    pad_packed_sequence,
)
from torch.utils.checkpoint import checkpoint

import padless

from .nn.layer_kit import CELLS, by_hand, twins

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]
each_cell = pytest.mark.parametrize("name", CELLS)
STACK: dict[str, Any] = {"num_layers": 2, "bidirectional": True, "dtype": torch.float64}


def pair(name: str, **options: Any) -> tuple[Any, Any]:
    cell, own = CELLS[name]
    return twins(cell, 3, 4, **{**STACK, **own, **options})


def data() -> PackedSequence:
    generator = torch.Generator().manual_seed(4)
    return by_hand([torch.randn(n, 3, dtype=torch.float64, generator=generator) for n in (4, 1, 3)])


def results(layer: Any, given_input: Any = None) -> list[Tensor]:
    """Output, states and every gradient, of one pass."""
    output, state = layer(data() if given_input is None else given_input)
    output = output if isinstance(output, Tensor) else output.data
    states = state if isinstance(state, tuple) else (state,)
    leaves = {n: p for n, p in layer.named_parameters() if p.requires_grad}
    loss = output.square().sum() + sum(s.sum() for s in states)
    grads = torch.autograd.grad(loss, list(leaves.values()))
    return [output.detach(), *(s.detach() for s in states), *grads]


def assert_alike(pair: tuple[Any, Any], given_input: Any = None) -> None:
    for a, b in zip(results(pair[0], given_input), results(pair[1], given_input), strict=True):
        torch.testing.assert_close(a, b)


@each_cell
def test_pruned_layers_are_torchs(name: str) -> None:
    layers = pair(name)
    for layer in layers:
        prune.l1_unstructured(layer, "weight_hh_l0", amount=0.5)
        prune.ln_structured(layer, "weight_ih_l1", amount=0.25, n=2, dim=0)
    assert_alike(layers)
    assert int((layers[0].weight_hh_l0 == 0).sum()) == layers[0].weight_hh_l0.numel() // 2
    for layer in layers:
        prune.remove(layer, "weight_hh_l0")
    a, b = (layer(data())[0].data for layer in layers)
    torch.testing.assert_close(a, b)


class Symmetric(nn.Module):
    """A parametrization of the user's: twice the upper triangle."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() * 2


@each_cell
def test_parametrized_weights_are_torchs(name: str) -> None:
    layers = pair(name)
    for layer in layers:
        parametrize.register_parametrization(layer, "weight_hh_l0", Symmetric(), unsafe=True)
    assert_alike_values(layers)


@each_cell
@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize(
    "norm", [nn.utils.weight_norm, nn.utils.parametrizations.weight_norm], ids=["old", "new"]
)
def test_weight_norm_is_torchs(name: str, norm: Callable[..., Any]) -> None:
    layers = pair(name)
    for layer in layers:
        norm(layer, "weight_hh_l0")
    assert_alike_values(layers)
    names = [[n for n, _ in layer.named_parameters()] for layer in layers]
    assert names[0] == names[1]


def assert_alike_values(layers: tuple[Any, Any]) -> None:
    outputs, grads = [], []
    for layer in layers:
        output, _ = layer(data())
        leaves = list(layer.parameters())
        outputs.append(output.data)
        grads.append(
            torch.autograd.grad(output.data.square().sum(), leaves, allow_unused=True, materialize_grads=True)
        )
    torch.testing.assert_close(*outputs)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


class WeightDrop(nn.Module):
    """AWD-LSTM's: the hidden weights dropped and set by setattr before every forward."""

    def __init__(self, layer: Any, p: float = 0.5) -> None:
        super().__init__()
        self.layer, self.p = layer, p
        weight = layer.weight_hh_l0
        del layer._parameters["weight_hh_l0"]
        self.raw = nn.Parameter(weight.data)
        layer.weight_hh_l0 = self.raw.clone()

    def forward(self, *args: Any) -> Any:
        dropped = nn.functional.dropout(self.raw, self.p, self.training)
        self.layer.weight_hh_l0 = dropped
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", category=UserWarning)
            return self.layer(*args)


@each_cell
def test_weight_drop_by_setattr_is_torchs(name: str) -> None:
    found = []
    for layer in pair(name):
        model = WeightDrop(layer)
        torch.manual_seed(6)
        first, second = results(model), results(model)
        assert not torch.equal(first[0], second[0]), "each forward drops anew"
        (grad,) = torch.autograd.grad(model(data())[0].data.sum(), model.raw)
        assert bool(grad.any())
        found.append([*first, *second, grad])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@each_cell
def test_flatten_parameters_in_every_forward_changes_nothing(name: str) -> None:
    ours, theirs = pair(name)
    before = [id(p) for p in ours.parameters()]
    for _ in range(2):
        for layer in (ours, theirs):
            layer.flatten_parameters()
        assert_alike((ours, theirs))
    assert [id(p) for p in ours.parameters()] == before


def _subclass(base: type[Any]) -> type[Any]:
    class Residual(base):
        """Normalises its input, flattens, calls super().forward, adds the input."""

        def __init__(self, width: int) -> None:
            super().__init__(width, width, num_layers=2)
            self.norm = nn.LayerNorm(width)

        def forward(self, input: Any, hx: Any = None) -> Any:
            self.flatten_parameters()
            normal = input._replace(data=self.norm(input.data))
            output, state = super().forward(normal, hx)
            return output._replace(data=output.data + input.data), state

    return Residual


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_subclasses_that_call_super_forward_are_torchs(cell: str) -> None:
    layers = []
    for home in (padless.nn, nn):
        torch.manual_seed(0)
        layers.append(_subclass(getattr(home, cell))(3).double())
    assert_alike((layers[0], layers[1]))


def test_a_subclass_with_torchs_annotations_takes_its_own_arguments() -> None:
    class Encoder(padless.nn.LSTM):
        def forward(  # type: ignore[override]
            self, x: Tensor, lengths: Tensor, hx: tuple[Tensor, Tensor] | None = None
        ) -> Tensor:
            packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            output, _ = super().forward(packed, hx)
            return pad_packed_sequence(output, batch_first=True)[0]

    torch.manual_seed(0)
    encoder = Encoder(3, 4, batch_first=True)
    x = torch.randn(2, 5, 3)
    expected, _ = padless.nn.LSTM.forward(encoder, x, lengths=[5, 2])
    torch.testing.assert_close(encoder(x, torch.tensor([5, 2])), expected)


def test_pack_run_unpack_with_the_last_output_is_torchs() -> None:
    """The tutorial's classifier: embed, pack, LSTM, take `h_n[-1]`, and the padded outputs."""
    found = []
    for home in (padless.nn, nn):
        torch.manual_seed(0)
        embedding, layer, head = nn.Embedding(9, 3, padding_idx=0), home.LSTM(3, 4), nn.Linear(4, 2)
        tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 0, 0], [7, 0, 0, 0]])
        packed = pack_padded_sequence(embedding(tokens), [4, 2, 1], batch_first=True)
        output, (h_n, _) = layer(packed)
        rows, lengths = pad_packed_sequence(output, batch_first=True)
        last = rows[torch.arange(3), lengths - 1]
        torch.testing.assert_close(last, h_n[-1])
        loss = nn.functional.cross_entropy(head(h_n[-1]), torch.tensor([0, 1, 0]))
        loss.backward()
        found.append([loss.detach(), embedding.weight.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@each_cell
def test_state_carried_and_detached_over_windows_is_torchs(name: str) -> None:
    """Truncated back-propagation, step by step as a language model or an agent does."""
    found = []
    for layer in pair(name, bidirectional=False):
        x, state, outputs = torch.randn(6, 2, 3, dtype=torch.float64), None, []
        x = torch.linspace(-1, 1, x.numel(), dtype=torch.float64).view_as(x)
        for window in x.split(2):
            output, state = layer(window, state)
            output.square().sum().backward()
            outputs.append(output.detach())
            state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        found.append([torch.cat(outputs), *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@each_cell
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_training_follows_torchs_trajectory(name: str, optimizer: Any) -> None:
    found = []
    for layer in pair(name, dropout=0.2):
        torch.manual_seed(2)
        head, losses = nn.Linear(2 * CELLS[name][1].get("proj_size", 4), 1).double(), []
        parameters = [*layer.parameters(), *head.parameters()]
        steps = optimizer(parameters, lr=0.05)
        for _ in range(6):
            steps.zero_grad(set_to_none=True)
            loss = head(layer(data())[0].data).square().mean()
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, 1.0)
            steps.step()
            losses.append(loss.detach())
        found.append([torch.stack(losses), *(p.detach() for p in parameters)])
        assert not torch.equal(losses[-1], losses[0])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@each_cell
def test_functional_call_computes_on_the_weights_it_is_given(name: str) -> None:
    found = []
    for layer in pair(name):
        given = {n: (p.detach() * 0.5).requires_grad_() for n, p in layer.named_parameters()}
        before = layer(data())[0].data.detach()
        output, _ = functional_call(layer, given, (data(),))
        grads = torch.autograd.grad(output.data.square().sum(), list(given.values()))
        assert torch.equal(layer(data())[0].data, before), "the layer's own weights are back"
        assert not torch.equal(output.data, before)
        found.append([output.data, *grads])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


@each_cell
def test_functional_call_takes_weights_of_another_dtype(name: str) -> None:
    """The input goes with the weights of the call, and after it with the layer's own again."""
    layer, found = pair(name, dtype=torch.float32)[0], []
    wide = {n: p.detach().double() for n, p in layer.named_parameters()}
    found.append(functional_call(layer, wide, (data(),))[0].data)
    with pytest.raises(ValueError, match="does not match weight dtype"):
        functional_call(layer, wide, (data().to(torch.float32),))
    found.append(layer(data().to(torch.float32))[0].data)
    assert [output.dtype for output in found] == [torch.float64, torch.float32]
    torch.testing.assert_close(*found, check_dtype=False)


@each_cell
def test_a_weight_that_is_no_parameter_any_more_is_found_where_it_is(name: str) -> None:
    """As plain attribute, then as buffer, which no `__setattr__` sees."""
    layers = pair(name)
    for layer in layers:
        weight = layer.weight_hh_l0.detach().clone()
        del layer.weight_hh_l0
        layer.weight_hh_l0 = weight * 2
    assert_alike(layers)
    for layer in layers:
        weight = layer.weight_hh_l0 * 2
        del layer.weight_hh_l0
        layer.register_buffer("weight_hh_l0", weight)
    assert_alike(layers)


@each_cell
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("gradients", [True, False])
def test_a_traced_layer_computes_on_what_it_is_given(name: str, gradients: bool) -> None:
    """Not on what it was traced with: a kernel that runs past the tracer leaves a constant in the graph."""
    layer = pair(name, num_layers=1)[0]  # a second one and more steps only take the tracers longer
    first, second = torch.randn(2, 3, 2, 3, dtype=torch.float64)

    def output(x: Tensor) -> Tensor:
        return layer(x)[0]

    with torch.set_grad_enabled(gradients):
        by_operators = make_fx(output)(first)
        by_script = torch.jit.trace(layer, (first,), check_trace=False)
        torch.testing.assert_close(by_operators(second), output(second))
        torch.testing.assert_close(by_script(second)[0], output(second))


@each_cell
def test_an_average_of_weights_by_deepcopy_is_torchs(name: str) -> None:
    found = []
    for layer in pair(name):
        average = copy.deepcopy(layer).requires_grad_(False)
        with torch.no_grad():
            for p in layer.parameters():
                p.mul_(1.5)
            for a, p in zip(average.parameters(), layer.parameters(), strict=True):
                a.lerp_(p, 0.5)
        found.append(average(data())[0].data)
    torch.testing.assert_close(*found)


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # Dynamo's own, of its own
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("name", ["rnn_tanh", "lstm", "gru"])
@pytest.mark.parametrize("kind", ["packed", "padded", "lengths"])
def test_a_compiled_model_gives_the_same_numbers(name: str, kind: str) -> None:
    cell, own = CELLS[name]
    ours, _ = twins(cell, 3, 4, dtype=torch.float64, **own)

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = ours, nn.Linear(4, 2, dtype=torch.float64)

        def forward(self, x: Any) -> Tensor:
            if kind == "lengths":
                return self.head(self.layer(x * 2, lengths=[4, 2])[0])
            output = self.layer(x)[0]
            return self.head(output if isinstance(output, Tensor) else output.data)

    model = Model()
    padded = torch.randn(4, 2, 3, dtype=torch.float64)
    x = pack_sequence([padded[:, 0], padded[:2, 1]]) if kind == "packed" else padded
    compiled = torch.compile(model, backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x), model(x))
    parameters = list(model.parameters())
    grads = [torch.autograd.grad(m(x).square().sum(), parameters) for m in (compiled, model)]
    torch.testing.assert_close(*grads)


def test_layers_inside_checkpointing_are_torchs() -> None:
    """Forward runs again in backward, with the same dropout."""
    found = []
    for layer in pair("lstm", dropout=0.5):
        torch.manual_seed(8)
        x = data()

        def run(rows: Tensor, layer: Any = layer, x: Any = x) -> Tensor:
            return layer(x._replace(data=rows))[0].data

        leaf = x.data.clone().requires_grad_()
        output = checkpoint(run, leaf, use_reentrant=False)
        output.square().sum().backward()
        found.append([output, leaf.grad, *(p.grad for p in layer.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def test_batch_sizes_may_be_a_strided_view(backend: str) -> None:
    ours, _ = twins("LSTM", 3, 4)
    rows, sizes = torch.randn(6, 3), torch.tensor([3, 9, 2, 9, 1, 9])[::2]
    expected, _ = ours(PackedSequence(rows, sizes.clone()))
    output, _ = ours(PackedSequence(rows, sizes))
    assert torch.equal(output.data, expected.data)
    output.data.sum().backward()


def test_batch_sizes_that_change_before_backward_do_not_touch_the_gradient(backend: str) -> None:
    ours, _ = twins("LSTM", 3, 4)
    gradients = []
    for later in (1, 100):
        sizes = torch.tensor([3, 2, 1])
        rows = torch.ones(6, 3, requires_grad=True)
        output, _ = ours(PackedSequence(rows, sizes))
        sizes.fill_(later)
        output.data.sum().backward()
        gradients.append(rows.grad)
    assert torch.equal(gradients[0], gradients[1])
