"""torch's own tools on padless layers: tracing, profiling, quantization; and sequences that were packed by hand."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

import padless


class Tagger(torch.nn.Module):
    def __init__(self, cell: str):
        super().__init__()
        self.rnn = getattr(torch.nn, cell)(3, 4, batch_first=True, bidirectional=True)

    def forward(self, x, lengths):
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        output, state = self.rnn(packed)
        return pad_packed_sequence(output, batch_first=True)[0], state


def flat(result):
    output, state = result
    return [output, *(state if isinstance(state, tuple) else [state])]


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_a_model_that_packs_inside_is_traced_with_its_check(cell):
    model = padless.accelerate(Tagger(cell))
    x, lengths = torch.randn(3, 5, 3), torch.tensor([2, 5, 3])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (x, lengths), check_trace=True)
    for other in (lengths, torch.tensor([5, 1, 4]), torch.tensor([5, 5, 5])):
        for got, expected in zip(flat(traced(x, other)), flat(model(x, other)), strict=True):
            torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
def test_sequences_of_length_0_are_traced(cell):
    class ByHand(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = getattr(padless.nn, cell)(3, 4)

        def forward(self, data):
            batch_sizes, order = torch.tensor([2, 1]), torch.tensor([1, 2, 0])
            output, state = self.rnn(PackedSequence(data, batch_sizes, order, order.argsort()))
            return output.data, state

    run = ByHand()
    data = torch.randn(3, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(run, (data,), check_trace=False)
    for got, expected in zip(flat(traced(data)), flat(run(data)), strict=True):
        torch.testing.assert_close(got, expected)


class Packer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = padless.nn.GRU(3, 4)

    def forward(self, x, lengths):
        packed = padless.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        padded, sizes = padless.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True)
        first = padless.rnn.unpad_sequence(padded, sizes, batch_first=True)[0]
        return padless.rnn.pad_sequence([first, first[:1]]), padded


@pytest.mark.parametrize("batch", [3, 20])
def test_a_model_that_packs_with_padless_is_traced_for_other_lengths(batch):
    model = Packer()
    x = torch.randn(batch, 5, 3)
    lengths, others = (torch.tensor([[2, 5, 3], [5, 1, 4]]).repeat(1, 7)[:, :batch]).unbind()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(model, (x, lengths), check_trace=False)
    for got, expected in zip(traced(x, others), model(x, others), strict=True):
        torch.testing.assert_close(got[: len(expected)], expected)


def test_packed_rows_are_padded_in_a_trace_by_the_batch_sizes_of_each_call():
    def pad(data, batch_sizes):
        return padless.rnn.pad_packed_sequence(PackedSequence(data, batch_sizes))[0]

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(pad, (torch.zeros(4, 1), torch.tensor([2, 1, 1])))
    rows = torch.arange(1.0, 6)[:, None]
    assert traced(rows, torch.tensor([2, 2, 1]))[..., 0].tolist() == [[1, 2], [3, 4], [5, 0]]


@pytest.mark.parametrize("cell", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("backend", ["native", "portable"])
def test_a_profiler_shows_layers_by_cell_and_backend(cell, backend):
    if backend not in padless.backends.available():
        pytest.skip(f"no {backend} backend here")
    layer = getattr(padless.nn, cell)(3, 4)
    name = layer.mode
    with padless.backends.use(backend), torch.autograd.profiler.profile() as profiler:
        layer(torch.randn(5, 2, 3))[0].sum().backward()
    names = {event.name for event in profiler.function_events}
    assert {f"padless::{name} ({backend})", f"padless::{name}_backward ({backend})"} <= names


def test_a_profiler_shows_inference_of_one_step():
    layer = padless.nn.GRU(3, 4)
    with torch.no_grad(), torch.autograd.profiler.profile() as profiler:
        layer(torch.randn(1, 1, 3))
    assert any(event.name.startswith("padless::GRU") for event in profiler.function_events)


@pytest.mark.parametrize(
    ("sorted_indices", "unsorted_indices"),
    [
        ([1, 0, 2], [0, 1, 2]),
        ([1, 2, 0], [1, 2, 0]),
        ([0, 1, 2], [0, 1, 3]),
        ([0, 1, 2], [0, 0, 2]),
        ([0, 1, 2], 2),
        (None, [1, 1]),
        (None, [1, 2]),
    ],
)
def test_indices_that_are_not_inverse_are_refused(sorted_indices, unsorted_indices):
    packed = PackedSequence(
        torch.randn(5, 3),
        torch.tensor([3, 2]) if sorted_indices else torch.tensor([2, 2, 1]),
        None if sorted_indices is None else torch.tensor(sorted_indices),
        torch.tensor(unsorted_indices),
    )
    with pytest.raises(padless.LayoutError, match="unsorted_indices"):
        padless.nn.GRU(3, 4)(packed)
    with pytest.raises(padless.LayoutError, match="unsorted_indices"):
        padless.rnn.pad_packed_sequence(packed)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("compiler", [None, "eager"])
def test_indices_of_one_direction_suffice(compiler):
    layer, h0 = padless.nn.GRU(3, 4), torch.randn(1, 2, 4)
    sequences = [torch.randn(1, 3), torch.randn(2, 3)]
    whole = padless.rnn.pack_sequence(sequences, enforce_sorted=False)
    half = PackedSequence(whole.data, whole.batch_sizes, None, whole.unsorted_indices)

    def run(packed):
        output, state = layer(packed, h0)
        return padless.rnn.pad_packed_sequence(output)[0], state

    for got, expected in zip(
        (torch.compile(run, backend=compiler) if compiler else run)(half), run(whole), strict=True
    ):
        torch.testing.assert_close(got, expected)
    for i, rows in enumerate(sequences):
        torch.testing.assert_close(run(half)[1][:, i], torch.nn.GRU.forward(layer, rows, h0[:, i])[1])


@pytest.mark.parametrize("cell", ["RNN", "LSTM", "GRU"])
def test_fake_tensors_have_the_shapes_of_torchs_layers(cell):
    with FakeTensorMode():
        theirs, ours = (getattr(nn, cell)(3, 4, bidirectional=True) for nn in (torch.nn, padless.nn))
        x = torch.randn(5, 2, 3)
        (expected, _), (output, _) = theirs(x), ours(x)
    assert output.fake_mode is not None and output.shape == expected.shape


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning")
def test_a_restored_model_is_quantized():
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        pytest.skip("torch has no quantized kernels here")
    model = padless.accelerate(torch.nn.Sequential(torch.nn.LSTM(3, 4)))
    quantized = torch.ao.quantization.quantize_dynamic(padless.restore(model), {torch.nn.LSTM})
    assert type(quantized[0]).__module__.startswith("torch.ao.nn.quantized.dynamic")


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_a_restored_model_is_traced_by_fx_and_scripted():
    class Last(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = torch.nn.GRU(3, 4)

        def forward(self, x):
            return self.rnn(x)[0]

    model, x = padless.restore(padless.accelerate(Last())), torch.randn(5, 2, 3)
    expected = model(x)
    for tool in (torch.fx.symbolic_trace, torch.jit.script):
        torch.testing.assert_close(tool(model)(x), expected)
