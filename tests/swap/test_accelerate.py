"""`accelerate` swaps layers in place and `restore` undoes exactly that."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import warnings
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import padless

HOMES = [(nn.RNN, padless.nn.RNN), (nn.LSTM, padless.nn.LSTM), (nn.GRU, padless.nn.GRU)]


class OwnLSTM(nn.LSTM):
    """A user's subclass that computes by itself."""

    def forward(self, input: Any, hx: Any = None) -> Any:
        return nn.LSTM.forward(self, input, hx)


class Tagger(nn.Module):
    """Nested, shared and alone: as models come."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.LSTM(3, 4, num_layers=2, bidirectional=True, dropout=0.1)
        self.stack = nn.Sequential(nn.GRU(8, 4), nn.Identity())
        self.choices = nn.ModuleList([nn.RNN(4, 4), nn.Linear(4, 4)])
        self.named = nn.ModuleDict({"last": nn.RNN(4, 4, nonlinearity="relu")})
        self.shared = self.encoder

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(x)[0]
        x = self.stack[0](x)[0]
        return self.named["last"](self.choices[0](x)[0])[0]


@pytest.fixture
def model() -> Tagger:
    torch.manual_seed(0)
    return Tagger()


def _recurrent(model: nn.Module) -> dict[str, type]:
    return {k: type(m) for k, m in model.named_modules() if isinstance(m, nn.RNNBase)}


@pytest.mark.parametrize(("theirs", "ours"), HOMES)
def test_the_model_itself_is_swapped_and_restored(theirs: Any, ours: Any) -> None:
    layer = theirs(3, 4)
    assert padless.accelerate(layer) is layer
    assert type(layer) is ours
    assert padless.restore(layer) is layer
    assert type(layer) is theirs


def test_every_layer_inside_is_swapped_and_restored(model: Tagger) -> None:
    before = _recurrent(model)
    assert padless.accelerate(model) is model
    twins = dict(HOMES)
    assert _recurrent(model) == {k: twins[t] for k, t in before.items()}
    assert len(before) == 4
    padless.restore(model)
    assert _recurrent(model) == before


def test_an_accelerated_model_gives_torchs_numbers(model: Tagger) -> None:
    model.eval()
    x = torch.randn(5, 2, 3)
    expected = model(x)
    torch.testing.assert_close(padless.accelerate(model)(x), expected)
    assert torch.equal(padless.restore(model)(x), expected)


def test_shared_layers_stay_one_layer(model: Tagger) -> None:
    padless.accelerate(model)
    assert model.shared is model.encoder
    assert type(model.shared) is padless.nn.LSTM


def test_two_layers_of_shared_weights_go_on_sharing_them() -> None:
    first, second = nn.LSTM(3, 4), nn.LSTM(3, 4)
    second.weight_hh_l0 = first.weight_hh_l0
    model: Any = padless.accelerate(nn.ModuleList([first, second]))
    assert model[0].weight_hh_l0 is model[1].weight_hh_l0
    with torch.no_grad():
        model[0].weight_hh_l0.zero_()
    assert not bool(model[1]._flat_weights[1].any())


def test_parameters_stay_the_same_objects_in_the_same_order(model: Tagger) -> None:
    before = [(k, id(p)) for k, p in model.named_parameters()]
    keys = list(model.state_dict())
    padless.accelerate(model)
    assert [(k, id(p)) for k, p in model.named_parameters()] == before
    assert list(model.state_dict()) == keys
    padless.restore(model)
    assert [(k, id(p)) for k, p in model.named_parameters()] == before


def test_references_held_elsewhere_see_the_same_layer(model: Tagger) -> None:
    held, method = model.encoder, model.encoder.forward
    padless.accelerate(model)
    assert model.encoder is held
    x = torch.randn(5, 2, 3)
    model.eval()
    torch.testing.assert_close(method(x)[0], model.encoder(x)[0])


def test_hooks_mode_and_attributes_are_kept(model: Tagger) -> None:
    calls: list[str] = []
    model.encoder.register_forward_hook(lambda *_: calls.append("after"))
    model.encoder.register_forward_pre_hook(lambda *_: calls.append("before"))
    model.encoder.register_full_backward_hook(lambda *_: calls.append("backward"))
    model.encoder.note = "mine"  # type: ignore[assignment]
    model.encoder.eval()
    model.stack.train()
    model.encoder.register_buffer("seen", torch.zeros(1))
    for change in (padless.accelerate, padless.restore):
        change(model)
        calls.clear()
        model(torch.randn(5, 2, 3, requires_grad=True)).sum().backward()
        assert calls == ["before", "after", "backward"]
        assert model.encoder.note == "mine"
        assert not model.encoder.training
        assert model.stack[0].training
        assert "seen" in dict(model.encoder.named_buffers())


def test_frozen_weights_stay_frozen(model: Tagger) -> None:
    model.encoder.weight_hh_l0.requires_grad_(False)
    padless.accelerate(model)
    model(torch.randn(5, 2, 3)).sum().backward()
    assert model.encoder.weight_hh_l0.grad is None
    assert model.encoder.weight_ih_l0.grad is not None


def test_accelerating_twice_is_accelerating_once(model: Tagger) -> None:
    once = _recurrent(padless.accelerate(model))
    assert _recurrent(padless.accelerate(model)) == once
    padless.restore(model)
    assert set(_recurrent(model).values()) == {nn.LSTM, nn.GRU, nn.RNN}
    assert _recurrent(padless.restore(model)) == _recurrent(model)


def test_optimizers_made_before_go_on_as_if_nothing_had_happened() -> None:
    found = []
    for change in (lambda m: m, padless.accelerate):
        torch.manual_seed(1)
        model = Tagger().double().eval()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        x = torch.randn(5, 2, 3, dtype=torch.float64)
        for step in range(4):
            if step == 2:
                change(model)
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        found.append(list(model.parameters()))
    torch.testing.assert_close(found[1], found[0])


def test_a_users_subclass_is_left_and_named_once(model: Tagger) -> None:
    model.named["own"] = OwnLSTM(3, 4)
    with pytest.warns(UserWarning) as caught:
        padless.accelerate(model)
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "named.own" in text
    assert "OwnLSTM" in text
    assert caught[0].filename == __file__
    assert type(model.named["own"]) is OwnLSTM
    assert type(model.encoder) is padless.nn.LSTM


def test_a_subclass_as_the_model_itself_is_left_and_named() -> None:
    with pytest.warns(UserWarning, match="OwnLSTM"):
        layer = padless.accelerate(OwnLSTM(3, 4))
    assert type(layer) is OwnLSTM


def test_several_left_layers_are_one_warning() -> None:
    model = nn.ModuleDict({"a": OwnLSTM(3, 4), "b": OwnLSTM(3, 4), "c": nn.LSTM(3, 4)})
    with pytest.warns(UserWarning) as caught:
        padless.accelerate(model)
    assert len(caught) == 1
    assert "a: " in str(caught[0].message)
    assert "b: " in str(caught[0].message)


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.filterwarnings("ignore:.*quantiz")
def test_a_quantized_layer_is_left_and_named() -> None:
    if not [e for e in torch.backends.quantized.supported_engines if e != "none"]:
        pytest.skip("this torch was built without a quantized engine")
    model = nn.Sequential(nn.LSTM(3, 4))
    quantized = torch.ao.quantization.quantize_dynamic(model, {nn.LSTM}, dtype=torch.qint8)
    kind = type(quantized[0])
    assert kind is not nn.LSTM
    with pytest.warns(UserWarning, match=r"0: torch\.ao\.nn\.quantized"):
        padless.accelerate(quantized)
    assert type(quantized[0]) is kind


def test_a_model_without_recurrent_layers_is_left_in_silence() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nn.Sequential(nn.Linear(3, 4), nn.LSTMCell(3, 4))
        assert padless.restore(padless.accelerate(model)) is model
    assert [type(m) for m in model] == [nn.Linear, nn.LSTMCell]


def test_padless_layers_made_as_such_are_restored_to_torchs() -> None:
    model = nn.Sequential(padless.nn.GRU(3, 4))
    assert type(padless.restore(model)[0]) is nn.GRU


def test_an_accelerated_model_pickles_and_copies(model: Tagger) -> None:
    padless.accelerate(model).eval()
    x = torch.randn(5, 2, 3)
    saved = io.BytesIO()
    torch.save(model, saved)
    saved.seek(0)
    copies = [
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        torch.load(saved, weights_only=False),
    ]
    for other in copies:
        assert _recurrent(other) == _recurrent(model)
        assert torch.equal(other(x), model(x))


def test_state_dicts_go_both_ways(model: Tagger) -> None:
    torch.manual_seed(5)
    other = padless.accelerate(Tagger())
    assert other.load_state_dict(model.state_dict()) == ([], [])
    model.eval()
    other.eval()
    x = torch.randn(5, 2, 3)
    torch.testing.assert_close(other(x), model(x))
    assert model.load_state_dict(other.state_dict()) == ([], [])


# ---- subclasses of the user's


class Doubled(torch.nn.LSTM):
    """Changes the input and the output around torch's own forward."""

    def forward(self, input, hx=None):
        output, state = super().forward(2 * input, hx)
        return output + 1, state


class Dropped(torch.nn.GRU):
    """Weight drop: the recurrent weights are made anew at every call."""

    def __init__(self, *args):
        super().__init__(*args)
        self.raw = torch.nn.Parameter(self.weight_hh_l0.detach().clone())
        del self.weight_hh_l0

    def forward(self, input, hx=None):
        self.weight_hh_l0 = self.raw * 0.5
        self._flat_weights = [getattr(self, name) for name in self._flat_weights_names]
        return super().forward(input, hx)


class HandlesNothing(torch.nn.RNNBase):
    """Handles sequences of length 0, as a class to mix in."""

    def forward(self, x, hx=None, lengths=None):
        if lengths is None:
            return super().forward(x, hx)
        packed = pack_padded_sequence(x, lengths.clamp(min=1), batch_first=True, enforce_sorted=False)
        output, state = super().forward(packed, hx)
        return pad_packed_sequence(output, batch_first=True)[0], state


class Mixed(HandlesNothing, torch.nn.LSTM):
    """As in pytorch-forecasting."""


class ByItself(torch.nn.RNN):
    def forward(self, input, hx=None):
        return torch.nn.RNN.forward(self, input, hx)


class OtherStates(torch.nn.GRU):
    def permute_hidden(self, hx, permutation):
        return hx


def tensors(result):
    output, state = result
    return [output, *(state if isinstance(state, tuple) else [state])]


@torch.no_grad()
@pytest.mark.parametrize("kind", [Doubled, Dropped, Mixed])
def test_a_subclass_that_calls_super_runs_on_padless(kind, monkeypatch):
    layer = kind(3, 4)
    x = torch.randn(5, 2, 3)
    expected = tensors(layer(x))
    assert padless.accelerate(layer) is layer
    assert isinstance(layer, kind) and type(layer).__name__ == kind.__name__
    calls = []
    run = padless.nn.recurrent._forward
    monkeypatch.setattr(padless.nn.recurrent, "_forward", lambda *given: calls.append(given) or run(*given))
    for got, want in zip(tensors(layer(x)), expected, strict=True):
        torch.testing.assert_close(got, want)
    assert calls
    for again in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert type(again) is type(layer)
        for got, want in zip(tensors(again(x)), expected, strict=True):
            torch.testing.assert_close(got, want)
    assert type(padless.restore(layer)) is kind


def test_a_mixed_in_forward_packs_for_padless():
    layer = Mixed(3, 4, batch_first=True)
    x, lengths = torch.randn(2, 5, 3), torch.tensor([0, 4])
    expected = tensors(layer(x, lengths=lengths))
    padless.accelerate(layer)
    for got, want in zip(tensors(layer(x, lengths=lengths)), expected, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("kind", [ByItself, OtherStates])
def test_a_subclass_that_computes_by_itself_is_left_with_a_warning(kind):
    layer = kind(3, 4)
    with pytest.warns(UserWarning, match=kind.__name__):
        padless.accelerate(layer)
    assert type(layer) is kind


class Decorated(torch.nn.LSTM):
    @torch.no_grad()
    def forward(self, x, hx=None):
        return super().forward(x, hx)


class Nested(torch.nn.LSTM):
    def forward(self, x, hx=None):
        def run():
            return super(Nested, self).forward(x, hx) if x is None else super(__class__, self).forward(x, hx)

        return run()


class ByHelper(torch.nn.LSTM):
    def forward(self, x, hx=None):
        return self.helper(x, hx)

    def helper(self, x, hx):
        return super().forward(x, hx)


class Registered(torch.nn.LSTM):
    kinds = ()

    def __init_subclass__(cls, *, name, **options):
        super().__init_subclass__(**options)
        assert name
        Registered.kinds += (cls,)


class OfRegistered(Registered, name="one"):
    def forward(self, x, hx=None):
        return super().forward(x, hx)


@pytest.mark.parametrize("kind", [Decorated, Nested, ByHelper, OfRegistered])
def test_a_subclass_that_calls_super_in_any_way_runs_on_padless(kind):
    layer = kind(3, 4)
    x = torch.randn(5, 2, 3)
    expected = tensors(layer(x))
    padless.accelerate(layer)
    assert isinstance(layer, padless.nn.LSTM)
    assert Registered.kinds == (OfRegistered,)
    for got, want in zip(tensors(layer(x)), expected, strict=True):
        torch.testing.assert_close(got, want)


class Sealed(type):
    def __new__(mcs, name, bases, members):
        if name in ("ofSealed", "OfSealed") and any(isinstance(base, mcs) for base in bases):
            raise TypeError("no subclasses")
        return super().__new__(mcs, name, bases, members)


class OfSealed(torch.nn.LSTM, metaclass=Sealed):
    def forward(self, x, hx=None):
        return super().forward(x, hx)


def test_a_class_that_refuses_subclasses_is_left_with_a_warning_and_the_others_are_swapped():
    model = torch.nn.Sequential(torch.nn.LSTM(3, 4), OfSealed(3, 4))
    with pytest.warns(UserWarning, match=r"1: .*OfSealed"):
        padless.accelerate(model)
    assert type(model[0]) is padless.nn.LSTM
    assert type(model[1]) is OfSealed


class MadeAnew(torch.nn.LSTM):
    def __init__(self, size):
        super().__init__(size, size)
        self.size = size

    def forward(self, x, hx=None):
        return super().forward(x, hx)

    def __reduce__(self):
        return MadeAnew.of, (self.size, dict(self.state_dict()))

    @staticmethod
    def of(size, state):
        layer = MadeAnew(size)
        layer.load_state_dict(state)
        return layer


class MadeOfItsClass(MadeAnew):
    def __reduce__(self):
        return type(self), (self.size,), self.__getstate__()


@pytest.mark.parametrize("kind", [MadeAnew, MadeOfItsClass])
def test_a_subclass_that_says_how_it_is_copied_is_copied_so(kind):
    layer, x = padless.accelerate(kind(3)), torch.randn(5, 2, 3)
    for again in (copy.deepcopy(layer), *(pickle.loads(pickle.dumps(layer, p)) for p in range(2, 6))):
        assert type(again) is type(layer)
        assert again.size == 3
        assert torch.equal(again(x)[0], layer(x)[0])


def test_what_is_no_module_is_refused():
    for function in (padless.accelerate, padless.restore):
        with pytest.raises(TypeError, match=rf"{function.__name__} takes a torch\.nn\.Module, got int"):
            function(3)


def test_a_warning_that_is_an_error_leaves_the_model_as_it_was():
    class Own(torch.nn.LSTM):
        def forward(self, input, hx=None):
            return input, hx

    model = torch.nn.ModuleDict({"plain": torch.nn.LSTM(2, 2), "own": Own(2, 2)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="left 1 recurrent layer"):
            padless.accelerate(model)
    assert type(model["plain"]) is torch.nn.LSTM


def test_classes_that_no_layer_has_any_longer_are_freed() -> None:
    def freed() -> list[weakref.ref[type]]:
        class Own(nn.LSTM):
            def forward(self, input: Any, hx: Any = None) -> Any:
                return super().forward(input, hx)

        layer, other = (padless.accelerate(Own(3, 4)) for _ in range(2))
        assert type(layer) is type(other) is not Own
        joined = weakref.ref(type(layer))
        assert type(copy.deepcopy(layer)) is type(layer)
        assert type(padless.restore(layer)) is Own
        return [weakref.ref(Own), joined]

    classes = freed()
    gc.collect()
    assert [each() for each in classes] == [None, None]
