"""Dropout between layers draws the numbers that torch draws."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_sequence

import padless

from .layer_kit import CELLS, KINDS, Problem, answer, assert_same, padded, twins

pytestmark = [
    pytest.mark.usefixtures("backend"),
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN"),
]
each_cell = pytest.mark.parametrize("name", CELLS)


def make(name: str, lengths: Any, **options: Any) -> Problem:
    cell, own = CELLS[name]
    settings = {"num_layers": 3, "bidirectional": True, "dropout": 0.4, **own, **options}
    return Problem(cell, lengths, settings)


def _packed(layer: Any, sequences: Any, hx: Any) -> Any:
    return layer(pack_sequence(sequences, enforce_sorted=False), hx)


def _padded(layer: Any, sequences: Any, hx: Any) -> Any:
    return layer(padded(sequences, batch_first=layer.batch_first), hx)


@each_cell
@pytest.mark.parametrize(
    ("call", "lengths", "batch_first"),
    [(_packed, (2, 5, 1, 3), False), (_padded, (4, 4, 4), False), (_padded, (4, 4, 4), True)],
    ids=["packed", "padded", "padded batch_first"],
)
def test_same_seed_drops_what_torch_drops(
    name: str, call: Any, lengths: tuple[int, ...], batch_first: bool
) -> None:
    problem = make(name, lengths, batch_first=batch_first)
    ours, theirs = problem.twins()
    answers, following = [], []
    for layer in (ours, theirs):
        torch.manual_seed(7)
        answers.append(answer(layer, problem, call))
        following.append(torch.rand(1))
    assert_same(answers[0], answers[1], problem)
    assert torch.equal(*following), "as many random numbers are drawn as torch draws"


@each_cell
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_drops_in_training_and_never_in_eval(name: str, kind: str) -> None:
    problem = make(name, (2, 5, 1, 3))
    ours, _ = problem.twins()
    torch.manual_seed(7)
    first, second = (answer(ours, problem, KINDS[kind]) for _ in range(2))
    assert not torch.equal(first["h_n"], second["h_n"])
    ours.eval()
    still, plain = answer(ours, problem, KINDS[kind]), make(name, (2, 5, 1, 3), dropout=0.0)
    undropped, _ = plain.twins()
    assert_same(still, answer(undropped, plain, KINDS[kind]), problem)


@each_cell
def test_dropout_of_one_cuts_the_layers_apart(name: str) -> None:
    problem = make(name, (2, 5, 1, 3), dropout=1.0)
    ours, theirs = problem.twins()
    actual = answer(ours, problem, _packed)
    assert_same(actual, answer(theirs, problem, _packed), problem)
    assert bool((actual["d weight_ih_l0"] != 0).any()), "h_n of layer 0 still reaches it"
    assert bool((actual["d weight_ih_l1"] == 0).all()), "its input is nothing but zeros"


def test_dropout_of_a_single_layer_warns_as_torchs_does() -> None:
    texts = []
    for home in (padless.nn, torch.nn):
        with pytest.warns(UserWarning, match="dropout option adds dropout after all but last") as caught:
            home.LSTM(3, 4, dropout=0.5)
        texts.append([str(w.message) for w in caught])
    assert texts[0] == texts[1]


def test_dropout_set_after_construction_is_heeded() -> None:
    ours, theirs = twins("LSTM", 3, 4, num_layers=2)
    sequences = [torch.randn(n, 3) for n in (4, 2)]
    for layer in (ours, theirs):
        layer.dropout = 0.5
    found = []
    for layer in (ours, theirs):
        torch.manual_seed(3)
        found.append(layer(pack_sequence(sequences))[0].data)
    torch.testing.assert_close(*found)
