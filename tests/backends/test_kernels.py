"""The kernels against each sequence alone in float64, and against themselves in other company."""

from __future__ import annotations

import copy
import functools

import pytest
import torch

import padless
from padless.backends import _kernels
from padless.errors import BackendError

if _kernels.missing():
    pytest.skip(str(_kernels.missing()), allow_module_level=True)

from .harness import Case, assert_close, oracle, run

CELLS = [*_kernels.CELLS, "LSTM projected"]
LAYOUTS = ["packed", "time_major", "flat", "batch_first", "time_first"]
SHAPES = [  # lengths, I, H
    ([4, 6, 8, 5, 4, 3, 7, 8], 5, 7),
    ([1], 1, 1),
    ([3, 0, 1], 3, 3),
    ([9, 2, 2, 2, 1, 5, 5, 30, 7], 17, 17),
    (list(range(1, 41)), 16, 32),
    ([2] * 13, 40, 100),
    ([0, 0], 2, 5),
    ([], 2, 5),
]


def case_of(cell: str, lengths, width: int, hidden: int, **options) -> Case:
    """The projected LSTM has an h of half as many numbers as cells."""
    if cell == "LSTM projected":
        return Case("LSTM", lengths, width, hidden, projection=(hidden + 1) // 2, **options)
    return Case(cell, lengths, width, hidden, **options)


@functools.cache
def solved(cell: str, lengths: tuple[int, ...], width: int, hidden: int, dtype, reverse: bool):
    """A case and what the oracle makes of it: once, for all instruction sets."""
    case = case_of(cell, list(lengths), width, hidden, dtype=dtype, reverse=reverse)
    return case, oracle(case)


@pytest.fixture(params=[i for i in _kernels.supported_isas() if not i.endswith("_emulated")], autouse=True)
def isa(request):
    _kernels.force_isa(request.param)
    yield request.param
    _kernels.force_isa(None)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"B{len(s[0])}-I{s[1]}-H{s[2]}")
def test_outputs_and_every_gradient_are_those_of_each_sequence_alone(cell, shape, reverse):
    lengths, width, hidden = shape
    for dtype in (torch.float32, torch.float64):
        case, want = solved(cell, tuple(lengths), width, hidden, dtype, reverse)
        for mode in ("infer", "train", "recompute"):
            assert_close(case, run(case, mode=mode), want)


@pytest.mark.parametrize(("hidden", "projection"), [(7, 1), (1, 3), (17, 16), (33, 70), (40, 129), (128, 64)])
def test_a_projection_of_any_width_gives_the_outputs_and_gradients_of_each_sequence_alone(hidden, projection):
    for dtype, reverse in ((torch.float32, False), (torch.float64, True)):
        lengths = [5, 5, 1, 0, 3, 9, 2, 2, 4, 7, 7, 7, 7, 7]
        case = Case("LSTM", lengths, 6, hidden, projection=projection, dtype=dtype, reverse=reverse)
        want = oracle(case)
        for mode in ("infer", "train", "recompute"):
            for threads in (1, 2):
                assert_close(case, run(case, mode=mode, threads=threads), want)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("cell", CELLS)
def test_every_width_up_to_three_vectors_gives_the_outputs_and_gradients_of_each_sequence_alone(cell, dtype):
    # The gates of a last panel share vectors in as many ways as there are units left over.
    for hidden in range(1, 3 * 16 + 2):
        case, want = solved(cell, (1, 3, 2), 3, hidden, dtype, False)
        for mode in ("infer", "train", "recompute"):
            assert_close(case, run(case, mode=mode), want)


def test_a_projection_that_the_weights_or_the_cell_do_not_have_is_refused():
    x, y = (
        _kernels.Rows(torch.zeros(2, n), torch.arange(2), torch.zeros(1, dtype=torch.int64)) for n in (3, 2)
    )
    for cell, gates, error in (
        ("LSTM", 4, "packed for another cell"),
        ("GRU", 3, "other than LSTM has a projection"),
    ):
        packed = _kernels.pack_forward(cell, torch.zeros(gates * 5, 3), torch.zeros(gates * 5, 5), None, None)
        with pytest.raises(BackendError, match=error):
            _kernels.forward(cell, packed, x, y, torch.tensor([1, 1]), 2, state_rows=1, hidden=5)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_is_read_and_written_where_it_lies(cell, layout):
    case = case_of(cell, [3, 9, 0, 4, 9, 1], 6, 21, bias=False)
    want = oracle(case)
    assert_close(case, run(case, layout=layout, y_layout="flat", extra=3), want)
    assert_close(case, run(case, layout="packed", y_layout=layout), want)


@pytest.mark.parametrize("threads", [2, 3, 7])
@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("cell", CELLS)
def test_threads_change_no_bit_of_an_output(cell, reverse, threads):
    lengths = (30, 4, 20, 20, 1, 2, 7, 7, 7, 9, 9, 9, 9, 9, 9, 9, 0, 12, 13) * 2
    case, want = solved(cell, lengths, 33, 100, torch.float32, reverse)
    alone, team = run(case), run(case, threads=threads)
    assert_close(case, team, want)
    for name in ("y", "h_n", "c_n"):
        assert_same(alone[name], team[name])
    again = run(case, threads=threads)
    for name in alone:
        assert_same(team[name], again[name])
    assert_close(case, run(case, threads=threads, mode="recompute"), want)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("cell", CELLS)
def test_a_sequence_has_the_same_bits_alone_and_in_any_company(cell, reverse):
    lengths = [7, 40, 3, 3, 12, 40, 1, 25] * 12
    case = case_of(cell, lengths, 19, 35, reverse=reverse)
    crowd = run(case, mode="infer")
    for layout in LAYOUTS:
        assert_same(crowd["y"], run(case, mode="infer", layout=layout)["y"])
    assert_same(crowd["y"], run(case)["y"])  # training too
    for some in ([1], [0], [5, 2], list(range(9)), list(range(40)), list(range(95, -1, -1))):
        part = case_of(cell, [lengths[i] for i in some], 19, 35, reverse=reverse)
        part.values = {n: v[some] if n in ("h0", "c0", "dh_n", "dc_n") else v for n, v in case.values.items()}
        part.x, part.dy = [case.x[i] for i in some], [case.dy[i] for i in some]
        for threads in (1, 2):
            got = run(part, mode="infer", threads=threads)
            assert_same([crowd["y"][i] for i in some], got["y"])
            assert_same(crowd["h_n"][some], got["h_n"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("cell", CELLS)
def test_bfloat16_rows_give_the_rounded_output_of_float32_and_gradients_of_that_precision(cell, layout):
    shapes = [
        ([4, 9, 8, 0, 4, 3, 7, 8], 6, 21, False),
        ([3, 1, 12], 33, 70, True),  # three threads share the columns of a step
        ([0, 0], 2, 5, False),
    ]
    for lengths, width, hidden, reverse in shapes:
        case = case_of(cell, lengths, width, hidden, narrow=True, reverse=reverse)
        wide = copy.copy(case)
        wide.narrow = False
        want = run(wide)
        for mode in ("infer", "train", "recompute"):
            for threads in (1, 3):
                got = run(case, layout=layout, y_layout="flat", extra=3, mode=mode, threads=threads)
                assert_same(got["y"], [y.bfloat16() for y in want["y"]])
                for name in ("h_n", "c_n"):
                    assert_same(got[name], None if want[name] is None else want[name].bfloat16())
                assert_close(case, got, want)
        case.wide_states = True
        got = run(case)
        assert_same(got["y"], [y.bfloat16() for y in want["y"]])
        for name in ("h_n", "c_n"):
            assert_same(got[name], want[name])
        assert_close(case, got, want)


@pytest.mark.parametrize(
    "given",
    [
        (torch.float32, torch.bfloat16, torch.bfloat16),
        (torch.bfloat16, torch.bfloat16, torch.float32),
        (torch.float16, torch.float16, torch.float16),
        (torch.float64, torch.float64, torch.float64),
    ],
)
def test_states_of_several_dtypes_or_one_that_is_not_read_are_refused(given):
    packed = _kernels.pack_forward("LSTM", torch.zeros(20, 3), torch.zeros(20, 5), None, None)
    h0, c0, last = (torch.zeros(1, 5, dtype=dtype) for dtype in given)
    x, y = (_kernels.Rows(torch.zeros(2, n)) for n in (3, 5))
    states = {"initial": _kernels.States(h0, c0), "final": _kernels.States(last, last.clone())}
    with pytest.raises(BackendError, match="all states"):
        _kernels.forward("LSTM", packed, x, y, torch.tensor([1, 1]), 2, state_rows=1, **states)


def assert_same(a, b):
    if a is None:
        assert b is None
    elif isinstance(a, list):
        for one, other in zip(a, b, strict=True):
            assert torch.equal(one, other)
    else:
        assert torch.equal(a, b)


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN_TANH"])
@pytest.mark.parametrize("hidden", [16, 40, 100])
@pytest.mark.parametrize("batch", [1, 3, 40])
def test_prefetching_the_next_panel_changes_no_bit(cell, hidden, batch):
    torch.manual_seed(0)
    mode, options = (cell, {}) if cell != "RNN_TANH" else ("RNN", {"nonlinearity": "tanh"})
    layer = getattr(padless.nn, mode)(24, hidden, **options)
    x = padless.Packed(torch.randn(sum(range(1, batch + 1)), 24), list(range(1, batch + 1)))

    def everything() -> list[torch.Tensor]:
        layer.zero_grad()
        output, _ = layer(x)
        output.data.square().sum().backward()
        with torch.no_grad():
            inferred, _ = layer(x)
        return [output.data, inferred.data, *(p.grad.clone() for p in layer.parameters())]

    try:
        _kernels.assume_l2_bytes(1 << 40)
        without = everything()
        _kernels.assume_l2_bytes(1)
        assert all(map(torch.equal, everything(), without))
    finally:
        _kernels.assume_l2_bytes(0)
