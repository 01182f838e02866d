"""Gradients as clients ask for them: twice, partly, frozen, in modes and transforms of torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, vmap

import padless

from .layer_kit import CELLS, KINDS, Problem, answer, assert_same, by_hand, oracle_answer, twins

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]
each_cell = pytest.mark.parametrize("name", CELLS)


def make(name: str, lengths: Any, *, dtype: Any = torch.float64, **options: Any) -> Problem:
    cell, own = CELLS[name]
    return Problem(cell, lengths, {**own, **options}, input_size=2, hidden_size=4, dtype=dtype)


def _gradient(leaf: Tensor) -> Tensor:
    assert leaf.grad is not None
    return leaf.grad


def _states(last: Any) -> tuple[Tensor, ...]:
    return last if isinstance(last, tuple) else (last,)


def _as_function(layer: Any, problem: Problem, kind: str) -> tuple[Callable[..., Any], list[Tensor]]:
    """The layer as a function of tensors, inputs, states and parameters, and those tensors."""
    count, names = len(problem.sequences), [n for n, _ in layer.named_parameters()]
    states = list(problem.state or ())

    def function(*tensors: Tensor) -> tuple[Tensor, ...]:
        sequences, rest = list(tensors[:count]), tensors[count:]
        given, weights = rest[: len(states)], rest[len(states) :]
        hx = (given if layer.mode == "LSTM" else given[0]) if given else None

        class Bound:
            batch_first = layer.batch_first

            def __call__(self, *args: Any, **kwargs: Any) -> Any:
                return functional_call(layer, dict(zip(names, weights, strict=True)), args, kwargs)

        output, last = KINDS[kind](Bound(), sequences, hx)
        data = output if isinstance(output, Tensor) and not output.is_nested else None
        if data is None:
            data = output.values() if isinstance(output, Tensor) else output.data
        return (data, *_states(last))

    leaves = [*problem.sequences, *states, *(p.detach() for p in layer.parameters())]
    return function, [t.clone().requires_grad_() for t in leaves]


@each_cell
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_gradients_are_finite_differences(name: str, kind: str, bidirectional: bool) -> None:
    problem = make(name, (2, 0, 3), bidirectional=bidirectional)
    ours, _ = problem.twins()
    function, leaves = _as_function(ours, problem, kind)
    assert torch.autograd.gradcheck(function, leaves, fast_mode=True)


@each_cell
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "nested"])  # torch's own limit
def test_gradients_of_gradients_are_finite_differences(name: str, kind: str) -> None:
    problem = make(name, (2, 1), bidirectional=kind == "packed_sequence")
    ours, _ = problem.twins()
    function, leaves = _as_function(ours, problem, kind)
    assert torch.autograd.gradgradcheck(function, leaves, fast_mode=True)


@each_cell
def test_gradient_penalty_is_torchs(name: str) -> None:
    """As a critic over sequences writes it: the norm of the gradient by the input, in the loss."""
    problem = make(name, (4, 3, 1), num_layers=2)
    found = []
    for layer in problem.twins():
        data, batch_sizes = by_hand(problem.sequences, fields=2)[:2]
        data = data.detach().requires_grad_()
        packed = torch.nn.utils.rnn.PackedSequence(data, batch_sizes)
        score = layer(packed)[0].data.sum()
        (slope,) = torch.autograd.grad(score, data, create_graph=True)
        loss = score + (slope.norm(dim=1) - 1).square().mean()
        loss.backward()
        found.append([data.grad, *(p.grad for p in layer.parameters())])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs)


@each_cell
@pytest.mark.parametrize("kind", KINDS)
def test_backward_twice_through_one_graph_gives_twice_the_gradient(name: str, kind: str) -> None:
    problem = make(name, (4, 1, 3), num_layers=2, bidirectional=True)
    ours, _ = problem.twins()
    function, leaves = _as_function(ours, problem, kind)
    loss = torch.stack([t.square().sum() for t in function(*leaves)]).sum()
    loss.backward(retain_graph=True)
    once = [_gradient(leaf).clone() for leaf in leaves]
    loss.backward()
    for leaf, first in zip(leaves, once, strict=True):
        assert torch.equal(_gradient(leaf), first * 2)


@each_cell
@pytest.mark.parametrize("asked", ["output", "h_n", "c_n"])
@pytest.mark.parametrize("kind", ["packed_sequence", "packed"])
def test_backward_through_one_result_only_is_torchs(name: str, asked: str, kind: str) -> None:
    if asked == "c_n" and CELLS[name][0] != "LSTM":
        asked = "h_n"
    problem = make(name, (4, 1, 3), num_layers=2, bidirectional=True)
    found = []
    for layer, layer_kind in zip(problem.twins(), (kind, "packed_sequence"), strict=True):
        inputs = [s.clone().requires_grad_() for s in problem.sequences]
        state = tuple(s.clone().requires_grad_() for s in problem.state or ())
        hx = state if layer.mode == "LSTM" else state[0]
        output, last = KINDS[layer_kind](layer, inputs, hx)
        results = {"output": output.data} | dict(zip(("h_n", "c_n"), _states(last), strict=False))
        leaves = [*inputs, *state, *layer.parameters()]
        found.append(torch.autograd.grad(results[asked].square().sum(), leaves, allow_unused=True))
    for ours, theirs in zip(*found, strict=True):
        if theirs is None:
            assert ours is None or not bool(ours.any())
        else:
            torch.testing.assert_close(ours, theirs)


@each_cell
def test_no_gradient_is_asked_for_where_nothing_requires_one(name: str) -> None:
    problem = make(name, (4, 1, 3))
    ours, _ = problem.twins()
    ours.requires_grad_(False)
    output, last = ours(by_hand(problem.sequences))
    assert not output.data.requires_grad
    assert not any(s.requires_grad for s in _states(last))


FREEZES: dict[str, Callable[[str], bool]] = {
    "hidden weights": lambda n: n.startswith("weight_hh"),
    "biases": lambda n: n.startswith("bias"),
    "first layer": lambda n: "_l0" in n,
    "all but the hidden bias of layer 1": lambda n: n != "bias_hh_l1",
    "all": lambda n: True,
}


@each_cell
@pytest.mark.parametrize("frozen", FREEZES)
def test_frozen_weights_get_no_gradient_and_change_no_other(name: str, frozen: str) -> None:
    problem = make(name, (4, 1, 3), num_layers=2, bidirectional=True)
    ours, _ = problem.twins()
    expected = oracle_answer(ours, problem)
    for parameter, value in ours.named_parameters():
        value.requires_grad_(not FREEZES[frozen](parameter))
    actual = answer(ours, problem, KINDS["packed"])
    assert_same(actual, {k: v for k, v in expected.items() if not _is_frozen(k, frozen)}, problem)


def _is_frozen(key: str, frozen: str) -> bool:
    name = key.removeprefix("d ")
    return key.startswith(("d weight", "d bias")) and FREEZES[frozen](name)


@each_cell
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("kind", KINDS)
def test_modes_without_gradients_give_the_same_numbers(name: str, mode: Any, kind: str) -> None:
    problem = make(name, (4, 0, 3), num_layers=2, bidirectional=True)
    ours, _ = problem.twins()
    function, leaves = _as_function(ours, problem, kind)
    with mode():
        plain = function(*leaves)
    for ours_value, value in zip(plain, function(*leaves), strict=True):
        assert not ours_value.requires_grad
        torch.testing.assert_close(ours_value, value.detach())


@each_cell
@pytest.mark.parametrize("changed", ["weight_hh_l0", "weight_ih_l0", "input", "h0"])
def test_changing_what_was_saved_before_backward_raises(name: str, changed: str) -> None:
    problem = make(name, (4, 3, 1))
    for layer in problem.twins():
        packed = by_hand(problem.sequences, fields=2)
        data = packed.data.clone().requires_grad_()
        state = tuple(s.clone() for s in problem.state or ())
        hx = state if layer.mode == "LSTM" else state[0]
        output, _ = layer(packed._replace(data=data), hx)
        saved = {"h0": state[0], "input": data}
        with torch.no_grad():
            (saved[changed] if changed in saved else getattr(layer, changed)).mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            output.data.square().sum().backward()


@each_cell
@pytest.mark.parametrize("packed", [True, False])
def test_strange_memory_is_read_right(name: str, packed: bool) -> None:
    """Every second column, a transpose, one row repeated by stride 0; gradients of stride 0 too."""
    cell, own = CELLS[name]
    ours, theirs = twins(cell, 3, 4, dtype=torch.float64, bidirectional=True, **own)
    wide = torch.randn(9, 6, dtype=torch.float64)
    rows = {
        "every second": wide[:, ::2],
        "transposed": torch.randn(3, 9, dtype=torch.float64).t(),
        "repeated": torch.randn(1, 3, dtype=torch.float64).expand(9, 3),
        "repeated column": torch.randn(9, 1, dtype=torch.float64).expand(9, 3),
    }
    width, steps = own.get("proj_size", 4), torch.tensor([4, 3, 2])
    h0 = torch.randn(1, 1, width, dtype=torch.float64).expand(2, 4, width)
    c0 = torch.randn(4, 2, 4, dtype=torch.float64).transpose(0, 1)
    for what, data in rows.items():
        found = []
        for layer in (ours, theirs):
            leaf = data.detach().requires_grad_()
            if packed:
                given_input: Any = torch.nn.utils.rnn.PackedSequence(leaf, steps)
                states = (h0, c0) if cell == "LSTM" else h0
            else:
                given_input = leaf.unflatten(0, (3, 3))
                states = (h0[:, :3], c0[:, :3]) if cell == "LSTM" else h0[:, :3]
            output, last = layer(given_input, states)
            output = output.data if packed else output
            loss = output.sum() + sum(s.sum() for s in _states(last))
            found.append([output, *torch.autograd.grad(loss, [leaf, *layer.parameters()])])
        for a, b in zip(*found, strict=True):
            torch.testing.assert_close(a, b, msg=lambda text, what=what: f"{what}: {text}")


@each_cell
def test_lazily_negative_memory_is_read_right(name: str) -> None:
    """The imaginary part of a conjugate: memory of the other sign, for torch to turn when it reads."""
    layer = make(name, [1]).twins()[0]
    given = [torch.randn(1, 1, n, dtype=torch.complex128) for n in (2, layer.proj_size or 4)]
    weights = {n: torch.randn(p.shape, dtype=torch.complex128) for n, p in layer.named_parameters()}
    outputs = []
    for read in (lambda z: torch._neg_view(z.imag.contiguous()), lambda z: z.conj().imag.resolve_neg()):
        x, h0 = map(read, given)
        hx = (h0, read(torch.ones(1, 1, 4, dtype=torch.complex128) * 1j)) if layer.mode == "LSTM" else h0
        leaves = {n: read(w).requires_grad_() for n, w in weights.items()}
        output, _ = functional_call(layer, leaves, (x, hx))
        cotangent = read(torch.full(output.shape, 1j, dtype=torch.complex128))
        outputs.append([output, *torch.autograd.grad(output, list(leaves.values()), cotangent)])
    for ours, theirs in zip(*outputs, strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "nested"])  # twice: torch's own limit
def test_one_tensor_as_both_states_gets_both_gradients(kind: str) -> None:
    problem = make("lstm", (4, 1, 3), num_layers=2)
    ours, _ = problem.twins()
    assert problem.state is not None
    leaf = problem.state[0].clone().requires_grad_()
    apart = [leaf.detach().clone().requires_grad_() for _ in range(2)]
    sums = []
    for hx in ((leaf, leaf), tuple(apart)):
        output, last = KINDS[kind](ours, problem.sequences, hx)
        data = output if isinstance(output, Tensor) else output.data
        sums.append(data.square().sum() + sum(s.square().sum() for s in last))
    (both,) = torch.autograd.grad(sums[0], leaf, create_graph=True)
    torch.testing.assert_close(both, sum(torch.autograd.grad(sums[1], apart)))
    assert torch.autograd.grad(both.square().sum(), leaf)[0].isfinite().all()


@each_cell
def test_results_may_be_changed_in_place_where_torchs_may(name: str) -> None:
    """States zeroed where a game ended, as reinforcement learning does; `nn.ReLU(inplace=True)` next."""
    problem = make(name, (4, 1, 3), num_layers=2)
    ours, theirs = problem.twins()
    found = []
    for layer in (ours, theirs):
        layer.zero_grad()
        output, last = layer(by_hand(problem.sequences))
        for s in _states(last):
            s[:, 1] = 0
        torch.relu_(output.data)
        (output.data.sum() + sum(s.square().sum() for s in _states(last))).backward()
        found.append([p.grad for p in layer.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b)


def _nodes(roots: list[Any]) -> set[Any]:
    seen: set[Any] = set()
    pending = [t.grad_fn for t in roots]
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            pending.extend(parent for parent, _ in node.next_functions)
    return seen


@each_cell
@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_does_not_grow_with_time(name: str, kind: str, backend: str) -> None:
    if backend == "torch":
        pytest.skip("torch's own graph has a node a step: what padless is for")
    counts = []
    for steps in (3, 30):
        problem = make(name, (steps, 1, 2), num_layers=2, bidirectional=True)
        ours, _ = problem.twins()
        output, last = KINDS[kind](ours, problem.sequences, None)
        data = output.values() if getattr(output, "is_nested", False) else output
        data = data if isinstance(data, Tensor) else data.data
        counts.append(len(_nodes([data, *_states(last)])))
    assert counts[0] == counts[1] < 60  # 4 layers and directions, 16 parameters and their states


@each_cell
def test_one_node_a_layer_and_direction(name: str, backend: str) -> None:
    if backend == "torch":
        pytest.skip("torch's own graph has a node a step: what padless is for")
    problem = make(name, (5, 1, 2), num_layers=2, bidirectional=True)
    ours, _ = problem.twins()
    output, last = ours(padless.pack(problem.sequences))
    holders = [
        node
        for node in _nodes([output.data, *_states(last)])
        if any(type(parent).__name__ == "AccumulateGrad" for parent, _ in node.next_functions)
    ]
    assert len(holders) == 4, "all parameters of a layer and direction hang on one node"


# ---- torch.func and forward mode --------------------------------------------------------------------


@pytest.fixture
def transformable(backend: str) -> None:
    if backend == "torch":
        pytest.skip("torch's own packed operators know no torch.func and no forward mode")


def _loss_function(layer: Any, steps: int = 4) -> Callable[..., Tensor]:
    names = [n for n, _ in layer.named_parameters()]

    def loss(weights: tuple[Tensor, ...], data: Tensor) -> Tensor:
        packed = torch.nn.utils.rnn.PackedSequence(data, torch.tensor([2, 2, 1][: steps - 1]))
        output, last = functional_call(layer, dict(zip(names, weights, strict=True)), (packed,))
        return output.data.square().sum() + sum(s.square().sum() for s in _states(last))

    return loss


@pytest.mark.usefixtures("transformable")
@each_cell
def test_func_grad_is_backward(name: str) -> None:
    cell, own = CELLS[name]
    ours, _ = twins(cell, 2, 4, dtype=torch.float64, **own)
    weights, data = tuple(ours.parameters()), torch.randn(5, 2, dtype=torch.float64)
    loss = _loss_function(ours)
    found = grad(loss)(tuple(w.detach() for w in weights), data)
    for a, b in zip(found, torch.autograd.grad(loss(weights, data), weights), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.usefixtures("transformable")
@each_cell
def test_vmap_over_grad_gives_a_gradient_a_sample(name: str) -> None:
    """Padded, since packed rows belong to no sample; torch's own layer is the measure."""
    cell, own = CELLS[name]
    ours, theirs = twins(cell, 2, 4, dtype=torch.float64, **own)
    samples = torch.randn(3, 5, 2, dtype=torch.float64)
    found = []
    for layer in (ours, theirs):
        weights = {n: p.detach() for n, p in layer.named_parameters()}

        def loss(weights: dict[str, Tensor], sample: Tensor, layer: Any = layer) -> Tensor:
            return functional_call(layer, weights, (sample,))[0].square().sum()

        try:
            found.append(vmap(grad(loss), in_dims=(None, 0))(weights, samples))
        except RuntimeError:
            assert layer is theirs, "torch can do it, padless cannot"
            found.append(
                {n: torch.stack([grad(loss)(weights, sample)[n] for sample in samples]) for n in weights}
            )
    for n, expected in found[1].items():
        torch.testing.assert_close(found[0][n], expected)


@pytest.mark.usefixtures("transformable")
@each_cell
def test_jacobian_by_rows_is_torchs(name: str) -> None:
    cell, own = CELLS[name]
    ours, _ = twins(cell, 2, 4, dtype=torch.float64, **own)
    data = torch.randn(5, 2, dtype=torch.float64)

    def outputs(data: Tensor) -> Tensor:
        packed = torch.nn.utils.rnn.PackedSequence(data, torch.tensor([2, 2, 1]))
        return ours(packed)[0].data

    expected = torch.autograd.functional.jacobian(outputs, data)
    torch.testing.assert_close(jacrev(outputs)(data), expected)


@pytest.mark.usefixtures("transformable")
@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch's own, of its own
@each_cell
def test_forward_mode_is_backward_mode(name: str) -> None:
    cell, own = CELLS[name]
    ours, _ = twins(cell, 2, 4, dtype=torch.float64, num_layers=2, bidirectional=True, **own)
    data = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    tangent = torch.randn(5, 2, dtype=torch.float64)

    def outputs(data: Tensor) -> Tensor:
        packed = torch.nn.utils.rnn.PackedSequence(data, torch.tensor([2, 2, 1]))
        return ours(packed)[0].data

    jacobian = torch.autograd.functional.jacobian(outputs, data)
    expected = (jacobian * tangent).sum((2, 3))
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(outputs(forward_ad.make_dual(data, tangent)))
    assert dual.tangent is not None
    torch.testing.assert_close(dual.tangent, expected)
    torch.testing.assert_close(jvp(outputs, (data.detach(),), (tangent,))[1], expected)


# ---- autocast ---------------------------------------------------------------------------------------


@each_cell
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_torchs_dtypes_and_near_numbers(
    name: str, packed: bool, with_state: bool, dtype: torch.dtype
) -> None:
    if name == "lstm" and dtype == torch.float16 and not packed:
        pytest.skip("torch's own padded LSTM has no float16 here to compare with")
    if name == "lstm" and not packed and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        pytest.skip("torch's own padded LSTM has no bfloat16 on this machine to compare with")
    # Ragged, for torch's packed LSTM changes its dtype where all lengths happen to be equal.
    problem = make(name, (4, 3, 1) if packed else (4, 4, 4), dtype=torch.float32, num_layers=2)
    found = []
    for layer in problem.twins():
        given_input = by_hand(problem.sequences) if packed else torch.stack(problem.sequences, 1)
        hx = None
        if with_state:
            hx = problem.state
            hx = hx[0] if hx is not None and layer.mode != "LSTM" else hx
        with torch.autocast("cpu", dtype=dtype):
            output, last = layer(given_input, hx)
        output = output.data if packed else output
        (output.float().square().sum() + sum(s.float().sum() for s in _states(last))).backward()
        found.append([output, *_states(last), *(p.grad for p in layer.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert ours.dtype == theirs.dtype
        scale = max(1.0, float(theirs.detach().abs().max()))
        # 4 steps, 2 layers of products rounded to this dtype, in torch and (less) in padless.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=16 * torch.finfo(dtype).eps * scale)
