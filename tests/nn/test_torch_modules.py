"""PyTorch's own inputs for its module tests (`common_modules.module_db`), run through the padless layers.

torch's wheels ship the inputs and not the test class, so the tests that it makes of them are written out here: values
against torch's layer, gradients of first and second order, batched ones included, and pickling.
"""

from __future__ import annotations

import pickle

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._pytree import tree_leaves, tree_map

import padless

common_modules = pytest.importorskip("torch.testing._internal.common_modules", exc_type=ImportError)

INFOS = [
    info
    for info in common_modules.module_db
    if info.module_cls in (torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU)
]


def inputs_of(info, training=True, requires_grad=True):
    return info.module_inputs_func(
        info, device="cpu", dtype=torch.float64, requires_grad=requires_grad, training=training
    )


CASES = [(info, number) for info in INFOS for number in range(len(inputs_of(info)))]
each_case = pytest.mark.parametrize(
    ("info", "number"), CASES, ids=[f"{info.module_cls.__name__}-{number}" for info, number in CASES]
)


def twins(info, case):
    constructor = case.constructor_input
    theirs = info.module_cls(*constructor.args, **constructor.kwargs).double()
    ours = getattr(padless.nn, info.module_cls.__name__)(*constructor.args, **constructor.kwargs).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def test_there_are_inputs_for_every_layer():
    assert {info.module_cls for info in INFOS} == {torch.nn.RNN, torch.nn.LSTM, torch.nn.GRU}
    assert len(CASES) > 20


@each_case
@pytest.mark.parametrize("training", [True, False])
def test_values_are_torchs(info, number, training):
    case = inputs_of(info, training)[number]
    ours, theirs = (layer.train(training) for layer in twins(info, case))
    given = case.forward_input
    found = tree_leaves(ours(*given.args, **given.kwargs))
    for got, want in zip(found, tree_leaves(theirs(*given.args, **given.kwargs)), strict=True):
        torch.testing.assert_close(getattr(got, "data", got), getattr(want, "data", want))
    again = pickle.loads(pickle.dumps(ours))
    for got, want in zip(tree_leaves(again(*given.args, **given.kwargs)), found, strict=True):
        assert torch.equal(got.data, want.data)


def check(info, number, checker, **options):
    case = inputs_of(info)[number]
    layer, _ = twins(info, case)
    given = case.forward_input
    leaves = [
        t for t in tree_leaves((given.args, given.kwargs)) if isinstance(t, torch.Tensor) and t.requires_grad
    ]
    weights = list(layer.parameters())

    def run(*tensors):
        swap = {id(old): new for old, new in zip(leaves, tensors, strict=False)}
        args, kwargs = tree_map(lambda t: swap.get(id(t), t), (given.args, given.kwargs))
        named = dict(zip((name for name, _ in layer.named_parameters()), tensors[len(leaves) :], strict=True))
        result = torch.func.functional_call(layer, named, args, kwargs)
        return tuple(t for t in tree_leaves(result) if isinstance(t, torch.Tensor) and t.is_floating_point())

    assert checker(run, (*leaves, *weights), check_batched_grad=True, **options)


@each_case
def test_first_derivatives(info, number):
    check(info, number, gradcheck, fast_mode=True)


# Half of the cases: torch counts through the options in binary, and an even number of ones leaves every
# combination of all options but one.
@pytest.mark.parametrize(
    ("info", "number"),
    [case for case in CASES if bin(case[1]).count("1") % 2 == 0],
    ids=lambda value: str(value) if isinstance(value, int) else value.module_cls.__name__,
)
def test_second_derivatives(info, number):
    check(info, number, gradgradcheck, fast_mode=True)
