"""Installed, torch's own layers give torch's results by padless's kernels; uninstalled, all is as it was."""

from __future__ import annotations

import copy
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import PackedSequence, pack_sequence

import padless
from padless import backends

LAYERS: dict[str, Any] = {
    "lstm": lambda **o: nn.LSTM(6, 8, **o),
    "lstm_projected": lambda **o: nn.LSTM(6, 8, proj_size=3, **o),
    "gru": lambda **o: nn.GRU(6, 8, **o),
    "rnn_tanh": lambda **o: nn.RNN(6, 8, **o),
    "rnn_relu": lambda **o: nn.RNN(6, 8, nonlinearity="relu", **o),
}
PACKED = pack_sequence([torch.randn(n, 6) for n in (4, 7, 1, 4)], enforce_sorted=False)
PADDED = torch.randn(5, 3, 6)
INPUTS = {"packed": PACKED, "padded": PADDED}

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


@pytest.fixture(autouse=True)
def _nothing_stays_installed() -> Iterator[None]:
    yield
    padless.uninstall()


def is_torchs(layer: nn.Module, input: Any = PACKED) -> bool:
    """Whether torch's own kernel ran: it leaves nodes of its cells in the graph, padless one of its own."""
    output, _ = layer(input)
    pending, names = [output.data.grad_fn if isinstance(output, PackedSequence) else output.grad_fn], set()
    while pending:
        node = pending.pop()
        if node is not None:
            names.add(type(node).__name__)
            pending += [parent for parent, _ in node.next_functions]
    return "_LayerBackward" not in names


def results(result: Any) -> list[Tensor]:
    output, state = result
    rows = output.data if isinstance(output, PackedSequence) else output
    return [rows.detach(), *(s.detach() for s in (state if isinstance(state, tuple) else (state,)))]


def answers(layer: nn.Module, input: Any) -> list[Tensor]:
    torch.manual_seed(3)
    layer.zero_grad()
    output, state = layer(input)
    rows = output.data if isinstance(output, PackedSequence) else output
    states = state if isinstance(state, tuple) else (state,)
    sum(value.square().sum() for value in (rows, *states)).backward()
    return [rows.detach(), *(s.detach() for s in states), *(p.grad.clone() for p in layer.parameters())]


@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layer", LAYERS)
def test_results_gradients_and_dropout_are_torchs(layer: str, batch_first: bool, input: str) -> None:
    model = LAYERS[layer](num_layers=2, bidirectional=True, dropout=0.4, batch_first=batch_first)
    expected = answers(model, INPUTS[input])
    with padless.install():
        assert not is_torchs(model, INPUTS[input])
        got = answers(model, INPUTS[input])
    for ours, theirs in zip(got, expected, strict=True):
        scale = max(1.0, float(theirs.abs().max()))
        assert torch.allclose(ours, theirs, rtol=0, atol=64 * torch.finfo(torch.float32).eps * 5 * scale)
    assert all(torch.equal(a, b) for a, b in zip(answers(model, INPUTS[input]), expected, strict=True))


def test_subclasses_scripted_modules_and_bare_operators_are_taken_over() -> None:
    class Tagger(nn.LSTM):
        def forward(self, input: Any, hx: Any = None) -> Any:
            return super().forward(input, hx)

    class Scripted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.GRU(6, 8)

        def forward(self, input: Tensor) -> tuple[Tensor, Tensor]:
            return self.inner(input)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit's own
        scripted = torch.jit.script(Scripted())
    weights = nn.RNN(6, 8)._flat_weights
    state = torch.zeros(1, 3, 8)

    def bare(input: Tensor) -> tuple[Tensor, Tensor]:
        return torch.rnn_tanh(input, state, weights, True, 1, 0.0, True, False, False)

    with padless.install():
        assert not is_torchs(Tagger(6, 8))
        assert not is_torchs(scripted, PADDED)
        assert not is_torchs(bare, PADDED)  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("input", INPUTS)
def test_inference_too(mode: Any, input: str) -> None:
    layer = nn.GRU(6, 8).eval()
    with mode():
        expected = layer(INPUTS[input])[1]
        with padless.install():
            assert torch.allclose(layer(INPUTS[input])[1], expected, atol=1e-6)


def test_blocks_nest_and_uninstall_puts_everything_back() -> None:
    layer = nn.LSTM(6, 8)
    assert is_torchs(layer)
    with padless.install():
        with padless.install():
            assert not is_torchs(layer)
        assert not is_torchs(layer)
    assert is_torchs(layer)
    padless.install()
    padless.install()
    assert not is_torchs(layer)
    padless.uninstall()
    padless.uninstall()
    assert is_torchs(layer)
    with pytest.raises(KeyError, match="gone"), padless.install():
        raise KeyError("gone")
    assert is_torchs(layer)


def test_one_object_serves_several_blocks() -> None:
    layer, installed = nn.LSTM(6, 8), padless.install()
    for _ in range(2):
        with installed:
            assert not is_torchs(layer)
        assert is_torchs(layer)


def test_a_block_left_late_does_not_undo_a_later_install() -> None:
    layer = nn.LSTM(6, 8)
    early = padless.install()
    padless.uninstall()
    padless.install()
    with early:
        pass
    assert not is_torchs(layer)


@pytest.mark.parametrize("layer", LAYERS)
def test_fake_tensors_and_tracing_see_torchs_operators(layer: str) -> None:
    def traced() -> list[str]:
        model = LAYERS[layer]()
        graph = make_fx(lambda x: model(x)[0], tracing_mode="real")(PADDED).graph
        return [str(node.target) for node in graph.nodes]

    expected = traced()
    with padless.install():
        assert traced() == expected
        with FakeTensorMode():
            output, _ = LAYERS[layer]()(torch.randn(5, 3, 6))
        assert output.fake_mode is not None
        assert not is_torchs(LAYERS[layer](), PADDED)


def test_what_padless_does_not_compute_stays_with_torch() -> None:
    half = PackedSequence(PACKED.data.to(torch.bfloat16), PACKED.batch_sizes)
    with padless.install():
        with backends.use("portable"):
            assert is_torchs(nn.LSTM(6, 8, dtype=torch.bfloat16), half)
        assert nn.GRU(6, 8, device="meta")(PADDED.to("meta"))[0].is_meta
        with torch.autocast("cpu", torch.bfloat16):
            assert is_torchs(nn.LSTM(6, 8))
        with backends.use("torch"):  # its operators are the ones that were taken over
            assert is_torchs(nn.LSTM(6, 8))
            assert is_torchs(padless.nn.LSTM(6, 8))
        gradient = torch.func.grad(lambda x: nn.GRU(6, 8)(x)[0].sum())(PADDED)
        assert gradient.shape == PADDED.shape


def test_wrong_calls_are_refused_and_forged_ones_read_nothing() -> None:
    forged = PackedSequence(torch.randn(3, 6), torch.tensor([9]))
    narrow = PackedSequence(torch.randn(3, 5), torch.tensor([3]))
    with padless.install():
        with pytest.raises(
            padless.LayoutError, match=r"batch_sizes\[0\] = 9 is larger than the data \(3 rows\)"
        ):
            nn.LSTM(6, 8)(forged)
        with pytest.raises(RuntimeError, match=r"must have shape \(32, 5\), got \(32, 6\)"):
            nn.LSTM(6, 8)(narrow)
        with pytest.raises(RuntimeError, match=r"Expected hidden\[0\] size \(1, 4, 8\)"):
            nn.LSTM(6, 8)(PACKED, (torch.zeros(1, 4, 7), torch.zeros(1, 4, 8)))
        with pytest.raises(RuntimeError, match="two hidden states"):
            torch.lstm(
                PADDED, [torch.zeros(1, 3, 8)], nn.LSTM(6, 8)._flat_weights, True, 1, 0.0, True, False, False
            )


def test_second_derivatives_survive() -> None:
    layer = nn.GRU(3, 4, dtype=torch.float64)
    rows = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    with padless.install():
        assert torch.autograd.gradgradcheck(
            lambda x: layer(PackedSequence(x, torch.tensor([3, 2, 1, 1])))[0].data, (rows,)
        )


def test_threads_may_compute_at_once() -> None:
    layer, failures = nn.LSTM(6, 8).eval(), []
    expected = layer(PADDED)[0]

    def work() -> None:
        outputs = [layer(PADDED)[0] for _ in range(20)]
        failures.extend(o for o in outputs if not torch.allclose(o, expected, atol=1e-6))

    with padless.install():
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failures


def test_a_process_may_end_installed_without_a_word() -> None:
    script = (
        "import torch, padless; padless.install(); print(torch.nn.GRU(3, 4)(torch.ones(2, 1, 3))[0].shape)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "torch.Size([2, 1, 4])"
    assert done.stderr == ""


CALLS = [(1, 1), (1, 8), (5, 3)]  # steps, sequences


def _of_kind(rows: Tensor, kind: str) -> Any:
    steps, batch = rows.shape[:2]
    return rows if kind == "padded" else PackedSequence(rows.flatten(0, 1), torch.full((steps,), batch))


@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize(("steps", "batch"), CALLS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "lstm_projected"])
def test_small_calls_give_torchs_results(layer: str, bias: bool, steps: int, batch: int, kind: str) -> None:
    model = LAYERS[layer](num_layers=2, bias=bias)
    rows = _of_kind(torch.randn(steps, batch, 6), kind)
    expected = answers(model, rows)
    with torch.no_grad():
        expected_states = model(rows)[1]
        with padless.install():
            torch.testing.assert_close(model(rows)[1], expected_states)
            for parameter in model.parameters():
                parameter.data.mul_(2.0)
            doubled = model(rows)[1]
        torch.testing.assert_close(doubled, model(rows)[1])
        for parameter in model.parameters():
            parameter.data.div_(2.0)
    with padless.install():
        got = answers(model, rows)
    torch.testing.assert_close(got, expected)


@pytest.mark.skipif(not backends.is_native(), reason="the native kernels were not built")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("input", INPUTS)
@pytest.mark.parametrize("layer", LAYERS)
def test_narrow_dtypes_have_the_results_of_padless_layers(
    layer: str, input: str, batch_first: bool, dtype: Any
) -> None:
    theirs = LAYERS[layer](dtype=dtype, batch_first=batch_first)
    ours = padless.accelerate(copy.deepcopy(theirs))
    rows = INPUTS[input]
    rows = rows.to(dtype) if isinstance(rows, Tensor) else rows._replace(data=rows.data.to(dtype))
    with padless.install():
        got = results(theirs(rows))
        with torch.no_grad():
            got += results(theirs(rows))
    expected = results(ours(rows))
    with torch.no_grad():
        expected += results(ours(rows))
    is_onednns = layer == "lstm" and input == "padded" and dtype == torch.bfloat16
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == b.dtype
        if is_onednns:
            torch.testing.assert_close(a, b, atol=0.02, rtol=0.02)
        else:
            assert torch.equal(a, b)


@pytest.mark.skipif(not backends.is_native(), reason="the native kernels were not built")
def test_a_padded_bfloat16_lstm_runs_on_padless_where_onednn_is_switched_off() -> None:
    layer = nn.LSTM(6, 8, dtype=torch.bfloat16)
    torch._C._set_mkldnn_enabled(
        False
    )  # torch.backends.mkldnn refuses to once torch's own tests have frozen it
    try:
        with padless.install():
            assert not is_torchs(layer, PADDED.to(torch.bfloat16))
    finally:
        torch._C._set_mkldnn_enabled(True)


@pytest.mark.skipif(not backends.is_native(), reason="the native kernels were not built")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["padded", "packed"])
@pytest.mark.parametrize(("steps", "batch"), CALLS)
@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "lstm_projected"])
def test_small_calls_in_narrow_dtypes_have_the_results_of_padless_layers(
    layer: str, steps: int, batch: int, kind: str, dtype: Any
) -> None:
    theirs = LAYERS[layer](num_layers=2, dtype=dtype)
    ours = padless.accelerate(copy.deepcopy(theirs))
    rows = _of_kind(torch.randn(steps, batch, 6, dtype=dtype), kind)
    with torch.no_grad():
        with padless.install():
            got = results(theirs(rows))
        for a, b in zip(got, results(ours(rows)), strict=True):
            assert torch.equal(a, b)
    with padless.install():
        got = answers(theirs, rows)
    for a, b in zip(got, answers(ours, rows), strict=True):
        torch.testing.assert_close(a, b, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("layer", [name for name in LAYERS if name != "lstm_projected"])
def test_a_sequence_fed_step_by_step_has_the_bits_of_the_whole(layer: str) -> None:
    model, rows, states, outputs = LAYERS[layer](), torch.randn(9, 3, 6), None, []
    with torch.no_grad(), padless.install():
        expected, expected_states = model(rows)
        for row in rows:
            output, states = model(row[None], states)
            outputs.append(output)
    assert torch.equal(torch.cat(outputs), expected)
    for ours, theirs in zip(
        torch.utils._pytree.tree_leaves(states), torch.utils._pytree.tree_leaves(expected_states), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_the_output_and_the_state_of_a_step_share_no_memory() -> None:
    for mode in (torch.no_grad, torch.enable_grad):
        for name in ("lstm", "gru"):
            with mode(), padless.install():
                output, state = LAYERS[name]()(torch.randn(1, 2, 6))
                h = state[0] if isinstance(state, tuple) else state
                before = h.clone()
                output.detach().zero_()
                assert torch.equal(h, before)


@pytest.mark.filterwarnings("ignore:.*is_fx_tracing will return true:UserWarning")
@pytest.mark.parametrize("steps", [1, 5, 300])
@pytest.mark.parametrize("layer", ["lstm", "gru"])
def test_a_model_of_torchs_layers_can_be_compiled(layer: str, steps: int) -> None:
    model = nn.Sequential(nn.Linear(6, 6), LAYERS[layer](batch_first=True))
    rows = torch.randn(2, steps, 6)
    expected = answers(model, rows)
    with padless.install():
        compiled = torch.compile(model, backend="eager")
        with torch.no_grad():
            torch.testing.assert_close(compiled(rows)[0], expected[0])
        torch.testing.assert_close([*compiled(rows)[0].detach().split(1)], [*expected[0].split(1)])


def test_installing_does_not_import_dynamo() -> None:
    program = (
        "import sys, torch, padless\n"
        "padless.install()\n"
        "torch.nn.GRU(3, 4)(torch.randn(1, 2, 3))\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)


def test_a_block_inside_of_a_block_of_the_same_object_leaves_it_installed():
    layer, x = nn.GRU(3, 4), torch.randn(3, 2, 3)

    def node():
        return type(layer(x)[0].grad_fn).__name__

    own = node()
    with padless.install() as installed:
        inside = node()
        with installed:
            assert node() == inside != own
        assert node() == inside
    assert node() == own


def test_states_of_two_dtypes_go_to_torch():
    layer = nn.LSTM(1, 1, bidirectional=True).double()
    batch = pack_sequence([torch.randn(2, 1).double(), torch.randn(1, 1).double()])
    states = torch.zeros(2, 2, 1).double(), torch.zeros(2, 2, 1)
    expected = layer(batch, states)[0].data
    with padless.install():
        assert torch.equal(layer(batch, states)[0].data, expected)


def test_blocks_of_one_thread_do_no_harm_to_layers_that_run_in_others() -> None:
    script = (
        "import threading, torch, padless\n"
        "torch.set_num_threads(1)\n"
        "layer, rows = torch.nn.GRU(5, 7), torch.randn(4, 3, 5)\n"
        "expected, ended, wrong = layer(rows)[0].detach(), threading.Event(), []\n"
        "@torch.no_grad()\n"
        "def serve():\n"
        "    while not ended.is_set():\n"
        "        if not torch.allclose(layer(rows)[0], expected, atol=1e-5):\n"
        "            wrong.append(layer)\n"
        "threads = [threading.Thread(target=serve) for _ in range(4)]\n"
        "for thread in threads:\n"
        "    thread.start()\n"
        "for _ in range(400):\n"
        "    with padless.install():\n"
        "        pass\n"
        "ended.set()\n"
        "for thread in threads:\n"
        "    thread.join()\n"
        "assert not wrong\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_block_lasts_while_those_of_other_threads_end() -> None:
    layer, entered, left = nn.LSTM(6, 8), threading.Event(), threading.Event()

    def other() -> None:
        with padless.install():
            entered.set()
            left.wait()

    thread = threading.Thread(target=other)
    thread.start()
    entered.wait()
    with padless.install():  # entered while the other is open, and left after it
        left.set()
        thread.join()
        assert not is_torchs(layer)
    assert is_torchs(layer)
    with padless.install():
        padless.install()
    assert not is_torchs(layer)  # the call in the block asked for no end


def test_a_block_that_uninstall_has_ended_does_not_end_a_later_one() -> None:
    layer, block = nn.LSTM(6, 8), padless.install()
    with block:
        padless.uninstall()
        assert is_torchs(layer)
        padless.install()
    assert not is_torchs(layer)


def test_uninstalled_torchs_operators_are_traced_as_before() -> None:
    program = (
        "import sys, torch\n"
        "from torch.fx.experimental.proxy_tensor import make_fx\n"
        "from torch.func import functional_call\n"
        "import padless.nn\n"
        "if sys.argv[1] == 'uninstalled':\n"
        "    padless.install()\n"
        "    padless.uninstall()\n"
        "for kind in (torch.nn.LSTM, torch.nn.GRU, torch.nn.RNN):\n"
        "    layer, rows = kind(4, 5).eval(), torch.randn(2, 2, 4)\n"
        "    call = lambda w, x: functional_call(layer, w, (x,))[0]\n"
        "    print(make_fx(call, tracing_mode='symbolic')(dict(layer.named_parameters()), rows).code)\n"
        "    print(torch.export.export(layer, (rows,)).run_decompositions().graph)\n"
    )
    graphs = [
        subprocess.run(
            [sys.executable, "-c", program, state], capture_output=True, text=True, check=True
        ).stdout
        for state in ("as it was", "uninstalled")
    ]
    assert graphs[0] == graphs[1] != ""
