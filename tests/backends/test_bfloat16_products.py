"""The kernels that multiply bfloat16 numbers, by emulation everywhere and on the hardware where it is there."""

from __future__ import annotations

import pytest
import torch

from padless.backends import _kernels
from padless.errors import BackendError

if _kernels.missing():
    pytest.skip(str(_kernels.missing()), allow_module_level=True)

from .harness import Case, assert_close, oracle, run
from .test_kernels import LAYOUTS, assert_same

CELLS = [*_kernels.CELLS, "LSTM projected"]
KINDS = {
    "high": {"precision": "high"},
    "medium": {"precision": "medium"},
    "bfloat16": {"precision": "medium", "narrow": True},
}
SHAPES = [  # lengths, I, H
    ([4, 6, 8, 5, 4, 3, 7, 8], 5, 7),
    ([1], 1, 1),
    ([3, 0, 1], 33, 16),
    ([2] * 37 + [1, 3], 40, 50),
    ([0, 0], 2, 5),
]
each_cell = pytest.mark.parametrize("cell", CELLS)
each_kind = pytest.mark.parametrize("kind", KINDS)


def case_of(cell: str, kind: str, lengths, width: int, hidden: int, **options) -> Case:
    if cell == "LSTM projected":
        cell, options["projection"] = "LSTM", (hidden + 1) // 2
    return Case(cell, lengths, width, hidden, **KINDS[kind], **options)


@pytest.fixture(params=["amx_emulated", "amx", "avx512_bf16_emulated", "avx512_bf16"], autouse=True)
def isa(request):
    if request.param not in _kernels.supported_isas():
        pytest.skip(f"{request.param}: this machine does not have it, or its kernel does not permit it")
    _kernels.force_isa(request.param)
    if "kind" in request.fixturenames:
        precision = KINDS[request.getfixturevalue("kind")]["precision"]
        if not _kernels.computes(precision):
            pytest.skip(f"{request.param} has no kernels of precision {precision}")
    yield request.param
    _kernels.force_isa(None)


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: f"B{len(s[0])}-I{s[1]}-H{s[2]}")
@each_kind
@each_cell
def test_outputs_and_every_gradient_are_those_of_each_sequence_alone(cell, kind, shape, reverse):
    case = case_of(cell, kind, *shape, reverse=reverse)
    want = oracle(case)
    if (
        cell == "RNN_RELU" and len(shape[0]) > 8
    ):  # an h near 0 may fall on the other side, where the slope is another
        want = {name: want[name] for name in ("y", "h_n")}
    trained = run(case)
    assert_close(case, trained, want)
    assert_close(case, run(case, mode="recompute"), want)
    for name, value in run(case, mode="infer").items():
        assert_same(value, trained[name])


@pytest.mark.parametrize("layout", LAYOUTS)
@each_kind
@each_cell
def test_every_layout_is_read_and_written_where_it_lies(cell, kind, layout):
    case = case_of(cell, kind, [4, 9, 8, 0, 4, 3, 7, 8], 6, 18)
    want = oracle(case)
    assert_close(case, run(case, layout=layout, y_layout="flat", extra=3), want)
    assert_close(case, run(case, layout="packed", y_layout=layout), want)


@each_kind
@each_cell
def test_threads_change_no_bit_of_an_output(cell, kind):
    case = case_of(cell, kind, [9, 4, 7, 7, 1, 2, 0, 3] * 5, 33, 40)
    alone, team = run(case), run(case, threads=3)
    if cell != "RNN_RELU":
        assert_close(case, team, oracle(case))
    for name in ("y", "h_n", "c_n"):
        assert_same(alone[name], team[name])


@each_kind
@each_cell
def test_a_sequence_has_the_same_bits_alone_and_in_any_company(cell, kind):
    lengths = [7, 12, 3, 3, 10, 12, 1, 9] * 5
    case = case_of(cell, kind, lengths, 19, 35)
    crowd = run(case, mode="infer")
    for some in ([1], [5, 2], list(range(9)), list(range(20)), list(range(39, -1, -1))):
        part = case_of(cell, kind, [lengths[i] for i in some], 19, 35)
        part.values = {n: v[some] if n in ("h0", "c0", "dh_n", "dc_n") else v for n, v in case.values.items()}
        part.x, part.dy = [case.x[i] for i in some], [case.dy[i] for i in some]
        got = run(part, mode="infer")
        assert_same([crowd["y"][i] for i in some], got["y"])
        assert_same(crowd["h_n"][some], got["h_n"])


@each_kind
@each_cell
def test_the_size_of_the_cache_changes_no_bit(cell, kind):
    """It decides how many rows of input are multiplied at once, and whether weights are prefetched."""
    case = case_of(cell, kind, [1 + i % 30 for i in range(60)], 5, 18)
    try:
        results = []
        for size in (1 << 40, 1):
            _kernels.assume_l2_bytes(size)
            results.append((run(case), run(case, mode="infer")))
    finally:
        _kernels.assume_l2_bytes(0)
    for first, second in zip(*results, strict=True):
        for name, value in first.items():
            assert_same(value, second[name])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e-40, 3e38])
@each_kind
def test_values_that_bfloat16_products_may_spread_stay_in_their_sequence(kind, value):
    case = case_of("LSTM", kind, [3, 5, 4], 5, 7)
    clean = run(case)
    case.x[1] = torch.full_like(case.x[1], value)
    other = run(case)
    for i in (0, 2):
        assert torch.equal(clean["y"][i], other["y"][i])
        assert torch.equal(clean["dx"][i], other["dx"][i])


@pytest.mark.parametrize(("gates", "cell"), [(4, "LSTM"), (3, "GRU"), (1, "RNN_TANH")])
@pytest.mark.parametrize(("width", "hidden"), [(5, 7), (33, 40), (64, 16), (1, 1)])
def test_bfloat16_weights_are_packed_as_their_float32_values(gates, cell, width, hidden):
    projection = [torch.randn(3, hidden).bfloat16()] if cell == "LSTM" else []
    weights = [torch.randn(gates * hidden, n).bfloat16() for n in (width, 3 if projection else hidden)]
    biases = [torch.randn(gates * hidden).bfloat16() for _ in range(2)]
    for pack, given in ((_kernels.pack_forward, weights + biases), (_kernels.pack_backward, weights)):
        wide = [w.float() for w in given + projection]
        got = pack(cell, *given, *projection, precision="medium")
        assert torch.equal(got, pack(cell, *wide, precision="medium"))


def test_weights_of_another_precision_are_refused():
    weights = torch.randn(16, 3), torch.randn(16, 4)
    packed = _kernels.pack_forward("LSTM", *weights, None, None)
    x, y = _kernels.Rows(torch.randn(2, 3)), _kernels.Rows(torch.empty(2, 4))
    with pytest.raises(BackendError, match="weights"):
        _kernels.forward("LSTM", packed, x, y, torch.tensor([1, 1]), 2, state_rows=1, precision="medium")


def test_three_products_refuse_bfloat16_rows():
    if not _kernels.computes("high"):
        pytest.skip("this instruction set has no three products")
    packed = _kernels.pack_forward(
        "LSTM", torch.randn(16, 3), torch.randn(16, 4), None, None, precision="high"
    )
    x, y = _kernels.Rows(torch.ones(2, 3).bfloat16()), _kernels.Rows(torch.empty(2, 4).bfloat16())
    with pytest.raises(BackendError, match="dtype"):
        _kernels.forward("LSTM", packed, x, y, torch.tensor([1, 1]), 2, state_rows=1, precision="high")


def test_a_set_without_bfloat16_products_refuses_their_precisions():
    _kernels.force_isa("baseline")
    for precision in ("medium", "high"):
        assert not _kernels.computes(precision)
        with pytest.raises((BackendError, RuntimeError)):
            _kernels.pack_forward(
                "LSTM", torch.randn(16, 3), torch.randn(16, 4), None, None, precision=precision
            )


@pytest.mark.parametrize("pair", [("amx_emulated", "amx"), ("avx512_bf16_emulated", "avx512_bf16")])
@each_kind
def test_the_emulation_has_the_bits_of_the_hardware(kind, pair):
    """In ReLU, whose cell rounds nothing: the emulated sets compute sigmoid and tanh without FMA."""
    if pair[1] not in _kernels.supported_isas():
        pytest.skip(f"this machine has no {pair[1]}")
    got = []
    for name in pair:
        _kernels.force_isa(name)
        if not _kernels.computes(KINDS[kind]["precision"]):
            pytest.skip(f"{name} has no kernels of this precision")
        got.append(run(case_of("RNN_RELU", kind, [4, 9, 8, 0, 4, 3, 7, 8], 33, 18)))
    for name, value in got[0].items():
        assert_same(value, got[1][name])
