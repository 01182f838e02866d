"""Packed weights that are kept, the fingerprint that they are kept by, and gates that are not kept."""

from __future__ import annotations

import gc
import weakref
from functools import partial

import pytest
import torch

import padless
from padless import backends
from padless.backends import _kept_weights, _kernels

if _kernels.missing():
    pytest.skip(str(_kernels.missing()), allow_module_level=True)


def test_fingerprint_is_alike_for_every_instruction_set():
    tensor = torch.randn(1001, 77)
    found = set()
    for isa in _kernels.supported_isas():
        _kernels.force_isa(isa)
        found.add(_kernels.fingerprint(tensor))
    _kernels.force_isa(None)
    assert len(found) == 1


@pytest.mark.parametrize("count", [1, 5, 63, 64, 65, 700])
def test_fingerprint_tells_every_changed_bit_and_every_two_swapped_words_and_changed_signs(count):
    words = torch.arange(1, count + 1, dtype=torch.int32)
    seen = {_kernels.fingerprint(words)}
    for i in range(count):
        for bit in (0, 15, 31):
            other = words.clone()
            other[i] ^= torch.tensor(1 << bit, dtype=torch.int64).to(torch.int32)
            seen.add(_kernels.fingerprint(other))
    assert len(seen) == 1 + 3 * count
    swaps = {
        _kernels.fingerprint(words[[*range(i), i + 1, i, *range(i + 2, count)]]) for i in range(count - 1)
    }
    assert len(swaps) == count - 1 and not swaps & seen
    assert _kernels.fingerprint(-words) not in seen
    assert _kernels.fingerprint(words[: count - 1]) not in seen


def layer_and_batch(name="LSTM", **options):
    torch.manual_seed(0)
    layer = getattr(padless.nn, name)(128, 128, **options)
    return layer, padless.pack([torch.randn(n, 128) for n in (9, 30, 4)])


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0", "weight_hr_l0"])
def test_inference_sees_weights_written_through_data(name):
    layer, batch = layer_and_batch(proj_size=64)
    with torch.no_grad():
        before = layer(batch)[0].data.clone()
        assert torch.equal(layer(batch)[0].data, before)
        getattr(layer, name).data[5, 7] += 1
        after = layer(batch)[0].data
    assert not torch.equal(after, before)
    assert torch.equal(after, layer(batch)[0].data.detach())  # with gradients nothing is kept


def test_kept_weights_are_bounded_and_fresh_for_another_instruction_set():
    weights = [
        [torch.randn(512, 128), torch.randn(512, 128), None, None] for _ in range(_kept_weights._KEPT + 9)
    ]
    first = _kept_weights.packed_forward("LSTM", *weights[0])
    assert _kept_weights.packed_forward("LSTM", *weights[0]) is first
    _kernels.force_isa("baseline")
    assert _kept_weights.packed_forward("LSTM", *weights[0]) is not first
    _kernels.force_isa(None)
    for one in weights:
        _kept_weights.packed_forward("LSTM", *one)
    assert len(_kept_weights._kept) == _kept_weights._KEPT


def _kept_for(call) -> list[torch.Tensor]:
    """The packed weights that a call adds to the cache."""
    before = {id(entry.packed) for entry in _kept_weights._kept.values()}
    with torch.no_grad():
        call()
    return [entry.packed for entry in list(_kept_weights._kept.values()) if id(entry.packed) not in before]


def test_packed_weights_are_freed_with_their_layer(monkeypatch):
    monkeypatch.setattr(_kept_weights, "_KEPT_BYTES", 1)  # the layer is larger than the limit
    layer, batch = layer_and_batch(proj_size=64)  # not a plain one, which keeps its own
    packed = [weakref.ref(each) for each in _kept_for(partial(layer, batch))]
    assert packed
    assert all(each() is not None for each in packed)
    del layer
    gc.collect()
    assert all(each() is None for each in packed)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
@pytest.mark.parametrize("way", ["projected", "scripted", "aliases", "compiled"])
def test_packed_weights_are_kept_as_long_as_their_layer(way, monkeypatch):
    """Also if the weights of each call are other tensors with the same memory."""
    layer, _ = layer_and_batch(**({"proj_size": 64} if way == "projected" else {}))
    padded = torch.randn(300, 2, 128)  # more rows than take the short path
    call = lambda: layer(padded)  # noqa: E731
    if way == "scripted":
        call = partial(torch.jit.script(torch.nn.Sequential(torch.nn.LSTM(128, 128))), padded)
    elif way == "aliases":
        call = lambda: torch.func.functional_call(  # noqa: E731
            layer, {name: p.detach() for name, p in layer.named_parameters()}, (padded,)
        )
    elif way == "compiled":
        call = torch.compile(call, backend="aot_eager")
    with padless.install():
        assert _kept_for(call)
        gc.collect()
        monkeypatch.setattr(_kernels, "pack_forward", None)  # not called again
        assert not _kept_for(call)


@pytest.mark.parametrize(
    ("name", "options"), [("LSTM", {}), ("LSTM", {"proj_size": 48}), ("GRU", {}), ("RNN", {})]
)
def test_recomputed_gates_give_the_same_gradients_bit_for_bit_and_are_not_kept(name, options):
    layer, batch = layer_and_batch(name, **options)
    gradients, kept = [], []
    for recomputes in (False, True):
        layer.zero_grad()
        sizes = []
        with (
            backends.recompute(recomputes),
            torch.autograd.graph.saved_tensors_hooks(
                lambda t, sizes=sizes: sizes.append(t.numel()) or t, lambda t: t
            ),
        ):
            output = layer(batch)[0].data
        output.square().sum().backward()
        gradients.append([p.grad.clone() for p in layer.parameters()])
        kept.append(sum(sizes))
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))
    assert kept[0] - kept[1] == {"LSTM": 43 * 512, "GRU": 43 * 512, "RNN": 0}[name]
