"""Bad calls: torch's own class and words where torch checks, clear words of ours where it forgets to."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

import padless

from .layer_kit import nested

pytestmark = pytest.mark.usefixtures("backend")

Call = Callable[[Any], Any]  # takes padless.nn or torch.nn

X = torch.ones(5, 2, 3)  # (T, B, I)


def caught(call: Callable[[], Any]) -> Exception:
    with pytest.raises(Exception) as error:  # what it is, the caller judges
        call()
    return error.value


# ---- the constructor ----------------------------------------------------------------------------------

CONSTRUCTORS: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "nothing": ((), {}),
    "no hidden size": ((3,), {}),
    "input_size float": ((3.0, 4), {}),
    "input_size 0": ((0, 4), {}),
    "hidden_size str": ((3, "4"), {}),
    "hidden_size 0": ((3, 0), {}),
    "num_layers 0": ((3, 4, 0), {}),
    "bias int": ((3, 4), {"bias": 1}),
    "batch_first int": ((3, 4), {"batch_first": 1}),
    "dropout 1.5": ((3, 4), {"dropout": 1.5}),
    "dropout bool": ((3, 4), {"dropout": True}),
    "dropout str": ((3, 4), {"dropout": "half"}),
    "proj_size": ((3, 4), {"proj_size": 4}),
    "proj_size negative": ((3, 4), {"proj_size": -1}),
    "proj_size small": ((3, 4), {"proj_size": 2}),
    "nonlinearity": ((3, 4), {"nonlinearity": "sigmoid"}),
    "unknown option": ((3, 4), {"colour": "red"}),
}


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("what", CONSTRUCTORS)
def test_constructor_refuses_what_torchs_refuses_in_the_same_words(cell: str, what: str) -> None:
    args, options = CONSTRUCTORS[what]

    def outcome(home: Any) -> Any:
        try:
            return repr(getattr(home, cell)(*args, **options))
        except Exception as error:
            return type(error), str(error)

    assert outcome(padless.nn) == outcome(nn)


# ---- the padded path: the same call on torch ----------------------------------------------------------


def _states(cell: str, *shape: int, dtype: torch.dtype = torch.float32) -> Any:
    h = torch.zeros(*shape, dtype=dtype)
    return (h, h.clone()) if cell == "LSTM" else h


PADDED: dict[str, Callable[[str], tuple[Any, ...]]] = {
    "1-D input": lambda cell: (torch.ones(3),),
    "4-D input": lambda cell: (torch.ones(1, 5, 2, 3),),
    "width 4": lambda cell: (torch.ones(5, 2, 4),),
    "unbatched width 4": lambda cell: (torch.ones(5, 4),),
    "no steps": lambda cell: (torch.ones(0, 2, 3),),
    "float64 input": lambda cell: (X.double(),),
    "2-D state": lambda cell: (X, _states(cell, 1, 4)),
    "3-D state of unbatched": lambda cell: (X[:, 0], _states(cell, 1, 1, 4)),
    "state of 3 for 2": lambda cell: (X, _states(cell, 1, 3, 4)),
    "state of 2 layers": lambda cell: (X, _states(cell, 2, 2, 4)),
    "state of width 5": lambda cell: (X, _states(cell, 1, 2, 5)),
}


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("what", PADDED)
@pytest.mark.parametrize("records", [True, False])
def test_padded_call_is_refused_in_torchs_class_and_words(cell: str, what: str, records: bool) -> None:
    with torch.set_grad_enabled(records):  # inference has a path of its own
        errors = [
            caught(lambda home=home: getattr(home, cell)(3, 4)(*PADDED[what](cell)))
            for home in (padless.nn, nn)
        ]
    assert type(errors[0]) is type(errors[1])
    assert str(errors[0]) == str(errors[1])


def test_second_lstm_state_is_checked_in_torchs_words() -> None:
    good, bad = torch.zeros(1, 2, 4), torch.zeros(1, 2, 5)
    errors = [caught(lambda home=home: home.LSTM(3, 4)(X, (good, bad))) for home in (padless.nn, nn)]
    assert type(errors[0]) is type(errors[1])
    assert str(errors[0]) == str(errors[1]) == "Expected hidden[1] size (1, 2, 4), got [1, 2, 5]"


@pytest.mark.parametrize("cell", ["RNN", "GRU"])  # for an LSTM torch forgets to check
def test_packed_width_is_refused_in_torchs_class_and_words(cell: str) -> None:
    packed = PackedSequence(torch.ones(3, 4), torch.tensor([2, 1]))
    errors = [caught(lambda home=home: getattr(home, cell)(3, 4)(packed)) for home in (padless.nn, nn)]
    assert type(errors[0]) is type(errors[1])
    assert str(errors[0]) == str(errors[1])


# ---- what torch forgets on its packed path -------------------------------------------------------------


def packed(
    batch_sizes: Any = (2, 2, 1), *, rows: int = 5, indices: Any = None, width: int = 3, dtype: Any = None
) -> PackedSequence:
    """A PackedSequence past its own constructor's checks, as pickles and careless code make them."""
    given = batch_sizes if isinstance(batch_sizes, Tensor) else torch.tensor(batch_sizes)
    indices = None if indices is None else torch.tensor(indices)
    fields = (torch.ones(rows, width, dtype=dtype), given, indices, indices)
    return tuple.__new__(PackedSequence, fields)


FORGED: dict[str, tuple[Callable[[], Any], str]] = {
    "growing": (lambda: packed((1, 2, 2)), r"batch_sizes\[1\] = 2 is larger than batch_sizes\[0\] = 1"),
    "negative": (lambda: packed((4, 2, -1)), r"batch_sizes\[2\] = -1 is not positive"),
    "zero": (lambda: packed((3, 2, 0)), r"batch_sizes\[2\] = 0 is not positive"),
    "too many": (lambda: packed((2, 2, 2)), r"batch_sizes sum to 6, but the data have 5 rows"),
    "too few": (lambda: packed((2, 2)), r"batch_sizes sum to 4, but the data have 5 rows"),
    "huge": (lambda: packed((2**62, 2**62)), r"batch_sizes\[0\] = 4611686018427387904 is larger than"),
    "none": (lambda: packed(torch.zeros(0, dtype=torch.int64)), r"batch_sizes sum to 0, .* 5 rows"),
    "int32": (lambda: packed(torch.tensor([2, 2, 1], dtype=torch.int32)), r"int64 .*got torch.int32"),
    "float": (lambda: packed(torch.tensor([2.0, 2.0, 1.0])), r"int64 .*got torch.float32"),
    "2-D": (lambda: packed(torch.tensor([[2, 2, 1]])), r"batch_sizes must be one-dimensional.*\(1, 3\)"),
    "list": (lambda: tuple.__new__(PackedSequence, (X[:, 0], [2, 2, 1], None, None)), "got list"),
    "index outside": (lambda: packed(indices=(0, 2)), r"sorted_indices\[1\] = 2 is outside 0\.\.1"),
    "index negative": (lambda: packed(indices=(-1, 0)), r"sorted_indices\[0\] = -1 is outside"),
    "index repeated": (lambda: packed(indices=(1, 1)), r"sorted_indices names sequence 1 more than once"),
    "index missing": (lambda: packed(indices=(0,)), r"sorted_indices has 1 entries for 2 sequences"),
    "index float": (lambda: packed(indices=(0.0, 1.0)), r"sorted_indices must be an int64 tensor"),
    "1-D data": (
        lambda: tuple.__new__(PackedSequence, (torch.ones(5), torch.tensor([2, 2, 1]), None, None)),
        "input must have 2 dimensions, got 1",
    ),
}


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("what", FORGED)
def test_forged_packed_sequence_is_refused_by_name(cell: str, what: str) -> None:
    make, words = FORGED[what]
    with pytest.raises((ValueError, RuntimeError), match=words):
        getattr(padless.nn, cell)(3, 4)(make())


def test_a_repeated_index_is_named_in_the_time_of_a_sort() -> None:
    count = 20_000
    indices = torch.arange(count)
    indices[-1] = 7
    forged = PackedSequence(torch.ones(count, 3), torch.tensor([count]), indices, torch.arange(count))
    begin = time.process_time()
    with pytest.raises(padless.LayoutError, match="sorted_indices names sequence 7 more than once"):
        padless.nn.GRU(3, 4)(forged)
    assert time.process_time() - begin < 0.5, "3 s where every index is counted among all"


def _call(cell: str, kind: str, hx: Any) -> Any:
    layer = getattr(padless.nn, cell)(3, 4, num_layers=2)
    if kind == "packed_sequence":
        return layer(packed(), hx)
    sequences = [torch.ones(3, 3), torch.ones(2, 3)]
    if kind == "packed":
        return layer(padless.pack(sequences), hx)
    if kind == "nested":
        return layer(nested(sequences), hx)
    return layer(torch.ones(3, 2, 3), hx, lengths=[3, 2])


each_kind = pytest.mark.parametrize("kind", ["packed_sequence", "packed", "nested", "lengths"])


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@each_kind
@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 3, 4), (1, 2, 4), (2, 2, 3), (2, 2, 5), (4, 2, 4)], ids=str)
def test_wrong_state_shape_is_refused_for_every_kind(cell: str, kind: str, shape: tuple[int, ...]) -> None:
    name = r"hidden\[0\]" if cell == "LSTM" else "hidden"
    words = rf"Expected {name} size \(2, 2, 4\), got \[{', '.join(map(str, shape))}\]"
    with pytest.raises(RuntimeError, match=words):
        _call(cell, kind, _states(cell, *shape))


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@each_kind
def test_wrong_state_dtype_is_refused_for_every_kind(cell: str, kind: str) -> None:
    with pytest.raises(
        RuntimeError, match=r"hidden.* has dtype torch.float64, but the input has torch.float32"
    ):
        _call(cell, kind, _states(cell, 2, 2, 4, dtype=torch.float64))


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@each_kind
def test_state_on_another_device_is_refused_for_every_kind(cell: str, kind: str) -> None:
    elsewhere = torch.zeros(2, 2, 4, device="meta")
    hx = (elsewhere, elsewhere) if cell == "LSTM" else elsewhere
    with pytest.raises(RuntimeError, match=r"hidden.* is on meta, but the input is on cpu"):
        _call(cell, kind, hx)


@pytest.mark.parametrize(
    "hx",
    [torch.zeros(2, 2, 4), (torch.zeros(2, 2, 4),), (torch.zeros(2, 2, 4),) * 3, "state"],
    ids=["a tensor", "one", "three", "str"],
)
@each_kind
def test_lstm_wants_two_states(hx: Any, kind: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=r"hx must be two tensors \(h0, c0\)"):
        _call("LSTM", kind, hx)


@pytest.mark.parametrize("cell", ["RNN", "GRU"])
@each_kind
def test_rnn_and_gru_want_one_state(cell: str, kind: str) -> None:
    with pytest.raises((RuntimeError, TypeError), match=r"hx must be a tensor \(L\*D, B, H\), got tuple"):
        _call(cell, kind, (torch.zeros(2, 2, 4), torch.zeros(2, 2, 4)))


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("kind", ["packed_sequence", "packed", "nested", "lengths"])
def test_wrong_width_is_refused_for_every_kind(cell: str, kind: str) -> None:
    layer, wide = getattr(padless.nn, cell)(3, 4), [torch.ones(3, 5), torch.ones(2, 5)]
    calls: dict[str, Callable[[], Any]] = {
        "packed_sequence": lambda: layer(packed(width=5)),
        "packed": lambda: layer(padless.pack(wide)),
        "nested": lambda: layer(nested(wide)),
        "lengths": lambda: layer(torch.ones(3, 2, 5), lengths=[3, 2]),
    }
    with pytest.raises(RuntimeError, match=r"Expected 3, got 5"):
        calls[kind]()


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    ("replace", "words"),
    [
        (lambda m: torch.zeros(1, 4), r"weight_hh_l0 must have shape \(\d+, 4\), got \(1, 4\)"),
        (
            lambda m: m.weight_hh_l0.detach().double(),
            r"weight_hh_l0 has dtype torch.float64, but weight_ih_l0",
        ),
        (lambda m: m.weight_hh_l0.detach().to("meta"), r"weight_hh_l0 is on meta, but the input is on cpu"),
        (lambda m: None, r"weight_hh_l0 must be a dense tensor, got NoneType"),
    ],
    ids=["shape", "dtype", "device", "None"],
)
def test_a_weight_set_wrongly_is_refused_by_name(cell: str, replace: Any, words: str) -> None:
    layer = getattr(padless.nn, cell)(3, 4)
    wrong = replace(layer)
    del layer.weight_hh_l0
    layer.weight_hh_l0 = wrong
    with pytest.raises(RuntimeError, match=words):
        layer(packed())


# ---- lengths ---------------------------------------------------------------------------------------------

LENGTHS: dict[str, tuple[Any, str]] = {
    "too long": ([5, 6], r"lengths\[1\] = 6 is longer than the padded input \(T = 5\)"),
    "negative": ([-1, 5], r"lengths\[0\] = -1 is negative"),
    "too many": ([5, 5, 5], r"lengths has 3 entries for a batch of 2"),
    "not whole": ([2.5, 5.0], r"lengths\[0\] = 2.5 is not a whole number"),
    "NaN": (torch.tensor([5.0, float("nan")]), r"lengths\[1\] = nan is not a whole number"),
    "2-D": (torch.tensor([[5, 5]]), r"lengths must be one-dimensional, \(B,\), got shape \(1, 2\)"),
    "text": ("55", r"lengths must be whole numbers, got str"),
    "bool": (torch.tensor([True, False]), r"lengths must be whole numbers, got dtype torch.bool"),
    "a number": (5, r"lengths must be a sequence of whole numbers, got int"),
}


@pytest.mark.parametrize("what", LENGTHS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_bad_lengths_are_refused_by_index(what: str, batch_first: bool) -> None:
    lengths, words = LENGTHS[what]
    layer = padless.nn.LSTM(3, 4, batch_first=batch_first)
    with pytest.raises(padless.LengthsError, match=words):
        layer(X.transpose(0, 1) if batch_first else X, lengths=lengths)


@pytest.mark.parametrize("kind", ["PackedSequence", "Packed", "NestedTensor"])
def test_lengths_beside_an_input_that_has_its_own_are_refused(kind: str) -> None:
    sequences = [torch.ones(3, 3), torch.ones(2, 3)]
    inputs = {
        "PackedSequence": packed(),
        "Packed": padless.pack(sequences),
        "NestedTensor": nested(sequences),
    }
    with pytest.raises(TypeError, match=rf"lengths goes with a padded tensor only; {kind} input has its own"):
        padless.nn.LSTM(3, 4)(inputs[kind], lengths=[3, 2])


def test_lengths_of_an_unbatched_input_are_refused() -> None:
    with pytest.raises(ValueError, match="lengths goes with a batch of sequences"):
        padless.nn.LSTM(3, 4)(X[:, 0], lengths=[5])


@pytest.mark.parametrize(
    "wrong", [None, "text", [[1.0]], (X, torch.tensor([1]))], ids=lambda w: type(w).__name__
)
def test_an_input_of_no_known_kind_is_refused_by_its_type(wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"input must be .*got {type(wrong).__name__}"):
        padless.nn.LSTM(3, 4)(wrong)


def test_a_sparse_input_is_refused_by_its_layout() -> None:
    with pytest.raises(RuntimeError, match="torch.sparse_coo"):
        padless.nn.LSTM(3, 4)(X.to_sparse())


def test_every_error_of_ours_is_a_value_error_or_runtime_error() -> None:
    """So that code written for torch's layers catches them."""
    assert issubclass(padless.LengthsError, ValueError)
    assert issubclass(padless.LayoutError, ValueError)
    assert issubclass(padless.BackendError, RuntimeError)


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("lengths", [[5, 3], torch.tensor([5, 3])], ids=["list", "tensor"])
def test_lengths_in_the_place_of_states_are_told_their_name(cell: str, lengths: Any) -> None:
    with pytest.raises(TypeError, match=r"got integers; pass lengths by keyword: lengths=\.\.\."):
        getattr(padless.nn, cell)(3, 4)(X, lengths)
