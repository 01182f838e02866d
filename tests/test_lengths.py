"""Whatever NumPy can turn into whole numbers is a list of lengths, everywhere that lengths are taken."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
import torch

import padless
from padless.lengths import host_lengths
from padless.planning.checks import as_lengths


class Series:
    """A column as pandas has it: indexed by labels, so that `series[0]` may be missing."""

    def __init__(self, values, dtype=None):
        self.values = np.array(values, dtype)
        self.shape = self.values.shape

    def __array__(self, dtype=None, copy=None):
        return self.values if dtype is None else self.values.astype(dtype)

    def __getitem__(self, label):
        raise KeyError(label)

    def __len__(self):
        return len(self.values)

    def __iter__(self):
        return iter(self.values)

    def tolist(self):
        return self.values.tolist()


KINDS = {
    "labelled": Series([2, 1, 3]),
    "objects": Series([2, 1, 3], object),
    "whole floats": Series([2.0, 1.0, 3.0]),
    "keys": {2: "", 1: "", 3: ""}.keys(),
    "array": array("i", [2, 1, 3]),
    "int16": np.array([2, 1, 3], np.int16),
    "iterator": None,
}


@pytest.mark.parametrize("kind", KINDS)
def test_lengths_of_this_kind_are_taken(kind):
    def lengths():
        return iter([2, 1, 3]) if kind == "iterator" else KINDS[kind]

    assert padless.Packed(torch.zeros(6), lengths()).lengths.tolist() == [2, 1, 3]
    padded = torch.arange(9).reshape(3, 3)
    assert padless.pack(padded, lengths()).data.tolist() == [0, 1, 3, 6, 7, 8]
    packed = padless.rnn.pack_padded_sequence(padded, lengths(), batch_first=True, enforce_sorted=False)
    assert packed.batch_sizes.tolist() == [3, 2, 1]
    layer = padless.nn.GRU(1, 2)
    assert layer(torch.zeros(3, 3, 1), lengths=lengths())[0].shape == (3, 3, 2)
    assert padless.waste(lengths()).rows == 6
    assert sorted(i for batch in padless.data.plan(lengths(), batch_size=2) for i in batch) == [0, 1, 2]


@pytest.mark.parametrize("bad", [Series([2, 1.5, 3]), Series([2, None, 3], object), Series(["2", "1", "3"])])
def test_what_is_not_whole_is_refused(bad):
    for take in (
        lambda: padless.Packed(torch.zeros(6), bad),
        lambda: padless.waste(bad),
        lambda: padless.data.plan(bad, batch_size=2),
    ):
        with pytest.raises(padless.LengthsError):
            take()


SAME = {
    "True of NumPy": lambda: [np.True_, 5],
    "True of torch": lambda: [torch.tensor(True), 5],
    "True of Python": lambda: [True, 5],
    "array of True": lambda: np.array([True, False]),
    "tensor of True": lambda: torch.tensor([True, False]),
    "masked": lambda: np.ma.array([5, 3], mask=[False, True]),
    "over 64 bits": lambda: [1, 2**70],
    "huge float": lambda: [1, 1e300],
    "huge floats": lambda: np.array([1, 1e300]),
    "infinite": lambda: [1, float("inf")],
    "negative": lambda: [1, -1],
    "half": lambda: [1, 0.5],
    "lists": lambda: [[1], [2, 3]],
    "lists of one": lambda: [[1], [2]],
    "texts": lambda: ["1", "2"],
    "nothing": list,
    "nothing masked": lambda: np.ma.array([5, 3]),
    "numbers": lambda: [np.int8(5), torch.tensor(3), 4.0, np.float16(2)],
    "63 bits": lambda: [2**60, 3],
}


@pytest.mark.parametrize("kind", SAME)
def test_both_checkers_without_torch_take_and_refuse_the_same(kind):
    def checked(check):
        try:
            return list(check(SAME[kind]()))
        except padless.LengthsError:
            return "refused"

    found = checked(host_lengths)
    assert found == checked(lambda lengths: as_lengths(lengths).values)
    is_taken = list(SAME).index(kind) >= list(SAME).index("nothing")
    assert isinstance(found, list) == is_taken


@pytest.mark.parametrize(
    "unordered", [{3, 1}, frozenset([2]), {0: 4, 1: 5}], ids=["set", "frozenset", "dict"]
)
def test_lengths_without_an_order_are_refused(unordered):
    for take in (
        lambda: padless.Packed(torch.zeros(9, 2), unordered),
        lambda: padless.waste(unordered),
        lambda: host_lengths(unordered),
    ):
        with pytest.raises(padless.LengthsError, match="in order, got"):
            take()
