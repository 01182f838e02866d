"""`watch`: the numbers of any training loop, from its batches alone; nothing of loop or loader changes."""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from collections import UserDict
from collections.abc import Callable
from operator import itemgetter
from typing import Any, NamedTuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence, pad_sequence
from torch.utils.data import DataLoader, IterableDataset

import padless
from padless import LengthsError, PadlessError, rnn, waste
from padless.report import BatchWaste
from padless.watching import batch_lengths

from .. import strategies

LENGTHS = [4, 6, 8, 5, 4, 3, 7, 8]
SIZE = 3  # of a batch


def sequences(lengths: list[int], *, width: int = 2) -> list[Tensor]:
    return [1 + torch.rand(length, width) for length in lengths]  # no row is 0, as padding is


def lengths_of(samples: list[Tensor]) -> Tensor:
    return torch.tensor([len(sample) for sample in samples])


def padded(samples: list[Tensor], more: int = 0) -> Tensor:
    return torch.nn.functional.pad(pad_sequence(samples, batch_first=True), (0, 0, 0, more))


def mask(samples: list[Tensor], more: int = 0) -> Tensor:
    return (padded(samples, more) != 0).any(-1)


class Named(NamedTuple):
    inputs: Tensor
    lengths: Tensor


@dataclasses.dataclass
class Held:
    inputs: Tensor
    lengths: list[int]


class Sequence(IterableDataset[Tensor]):
    def __init__(self, samples: list[Tensor]) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        return iter(self.samples)


def loader_of(collate: Callable[[list[Tensor]], Any], lengths: list[int] = LENGTHS, **options: Any) -> Any:
    return DataLoader(sequences(lengths), batch_size=SIZE, collate_fn=collate, **options)


def watched_waste(loader: Any, **options: Any) -> padless.Waste:
    with padless.watch(loader, report=None, **options) as watched:
        for _ in loader:
            pass
    return watched.waste


# ---- how lengths are found ----------------------------------------------------------------------------

FOUND: dict[str, Callable[[list[Tensor]], Any]] = {
    "batch, a Packed": padless.pack,
    "batch, a PackedSequence": lambda samples: pack_sequence(samples, enforce_sorted=False),
    "batch, a NestedTensor": lambda samples: torch.nested.nested_tensor(samples, layout=torch.jagged),
    "batch[0], a Packed": lambda samples: (padless.pack(samples), padless.pack(samples) * 2, 7),
    "batch['x'][1], a PackedSequence": lambda samples: {"x": (1, rnn.pack_sequence(samples, False)), "lengths": [1]},
    "batch[1]": lambda samples: (padded(samples), lengths_of(samples)),
    "batch[2]": lambda samples: [pad_sequence(samples), torch.randn(len(samples)), lengths_of(samples).int()],
    "batch[0][1]": lambda samples: ((padded(samples), lengths_of(samples).tolist()), "names"),
    "batch['lengths']": lambda samples: {"x": padded(samples), "lengths": lengths_of(samples), "n": [9] * len(samples)},
    "batch['attention_mask']": lambda samples: UserDict(ids=padded(samples), attention_mask=mask(samples).long()),
    "batch['x']['attention_mask']": lambda samples: {"x": {"attention_mask": mask(samples).float()}},
    "batch.lengths": lambda samples: Named(padded(samples), lengths_of(samples)),
    "batch[0].lengths": lambda samples: (Held(padded(samples), lengths_of(samples).tolist()), 1),
    "batch['n']": lambda samples: {"x": padded(samples).numpy(), "n": lengths_of(samples).numpy()},
}  # fmt: skip


@pytest.mark.parametrize("how", FOUND)
def test_lengths_are_found_where_they_are(how):
    loader = loader_of(FOUND[how])
    said: list[str] = []
    with padless.watch(loader, report=said.append) as watched:
        for _ in loader:
            pass
    assert watched.waste == waste(LENGTHS, batch_size=SIZE)
    would = "padded, they would be " if how.endswith(("Packed", "PackedSequence", "Tensor")) else ""
    assert said == [
        f"padless.watch: {would}45 rows of 55 cells: 18.2 % wasted, 8 sequences in 3 batches (lengths: {how})"
    ] == [str(watched)]  # fmt: skip


@pytest.mark.parametrize("how", ["batch, a Packed", "batch, a NestedTensor", "batch['lengths']"])
@given(strategies.lengths(min_batch=1))
def test_the_numbers_are_those_of_waste(how, lengths):
    assert watched_waste(loader_of(FOUND[how], lengths)) == waste(lengths, batch_size=SIZE)


def test_sequences_of_length_0_in_a_packed_sequence_count():
    loader = loader_of(lambda samples: rnn.pack_sequence(samples, enforce_sorted=False), [0, 3, 0, 2])
    assert watched_waste(loader) == waste([0, 3, 0, 2], batch_size=SIZE)


@pytest.mark.parametrize(
    "collate",
    [
        lambda samples: {"x": padded(samples, 10), "lengths": lengths_of(samples)},
        lambda samples: {"attention_mask": mask(samples, 10)},
        lambda samples: (padded(samples, 10), lengths_of(samples)),
        lambda samples: (padded(samples, 10).transpose(0, 1), lengths_of(samples)),
    ],
    ids=["named", "mask", "pair", "time first"],
)
def test_padding_beyond_the_longest_sequence_counts(collate):
    numbers = watched_waste(loader_of(collate))
    assert [batch.steps for batch in numbers.batches] == [18, 15, 18]
    assert (numbers.rows, numbers.cells) == (45, 3 * 18 + 3 * 15 + 2 * 18)


def test_a_function_tells_lengths_where_nothing_else_does():
    loader = loader_of(list)
    assert watched_waste(loader, lengths=lambda batch: [len(each) for each in batch]) == waste(
        LENGTHS, batch_size=SIZE
    )


def test_a_function_goes_before_what_the_batch_says():
    loader = loader_of(lambda samples: {"x": padless.pack(samples), "n": [1] * len(samples)})
    assert watched_waste(loader, lengths=itemgetter("n")).rows == len(LENGTHS)


def test_the_grid_of_given_lengths_is_looked_for_too():
    loader = loader_of(lambda samples: (padded(samples, 10), samples))
    numbers = watched_waste(loader, lengths=lambda batch: lengths_of(batch[1]))
    assert [batch.steps for batch in numbers.batches] == [18, 15, 18]


IDS = torch.tensor([[5, 6, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0]])  # 0 is a token too
CHANNELS = torch.nn.functional.pad(1 + torch.rand(2, 80, 9), (0, 1))


@pytest.mark.parametrize(
    ("batch", "cells"),
    [
        ({"input_ids": IDS, "lengths": [3, 2]}, 12),
        ({"input_ids": IDS, "labels": IDS - 1, "n": [1, 2], "lengths": torch.tensor([3, 2])}, 12),
        ({"x": padded(sequences([3, 2]), 4), "y": torch.rand(2, 5), "lengths": [3, 2]}, 14),
        ({"features": torch.rand(2, 300), "x": torch.rand(5), "lengths": [3, 2]}, 6),
        ({"x": CHANNELS, "lengths": [9, 9]}, 18),
        ({"x": torch.rand(2, 4), "y": torch.rand(2, 5), "lengths": [3, 2]}, 6),
    ],
    ids=["ids", "two alike", "two, one proved", "flat", "channels first", "two, none proved"],
)
@pytest.mark.parametrize("is_given", [False, True])
def test_the_grid_of_explicit_lengths_is_the_tensor_that_fits(batch, cells, is_given):
    watched = padless.watch([batch], lengths=itemgetter("lengths") if is_given else None, report=None)
    list(watched)
    assert watched.waste.cells == cells
    assert ("they would be" in str(watched)) == (cells in (6, 18))


def test_the_values_of_explicit_lengths_grids_are_looked_at_once(monkeypatch):
    looked = []
    real = batch_lengths._is_padding_behind
    monkeypatch.setattr(batch_lengths, "_is_padding_behind", lambda *given: looked.append(1) or real(*given))
    batch = {"x": torch.rand(2, 4, 9), "y": padded(sequences([3, 2]), 4), "lengths": [3, 2]}
    watched = padless.watch([batch] * 5)
    list(watched)
    assert watched.waste.cells == 5 * 14 and len(looked) <= 4


def test_a_batch_without_padding_settles_nothing_and_the_next_ones_do():
    loader = loader_of(lambda samples: (padded(samples), lengths_of(samples)), [5, 5, 5, 5, 5, 5, 2, 3])
    assert watched_waste(loader) == waste([5, 5, 5, 5, 5, 5, 2, 3], batch_size=SIZE)


def test_numbers_that_fit_by_chance_are_refused_once_a_batch_shows_it():
    """Labels that all equal T pass where nothing is padded, and no longer."""
    batches = [(torch.rand(2, 5, 1), torch.tensor([5, 5])), (torch.rand(2, 5, 1), torch.tensor([5, 2]))]
    with pytest.raises(LengthsError, match=r"^watch: batch 1: found no lengths in it \(batch\[0\]: Tensor"):
        list(padless.watch(batches))


def test_lengths_that_move_to_another_place_are_refused():
    full, short = torch.ones(2, 3, 1), torch.tensor([[[1.0], [1], [0]], [[1], [1], [1]]])
    batches = [(full, [3, 3], "x"), (short, "x", [2, 3])]
    message = r"^watch: batch 1: lengths seemed to be in batch\[1\], but now in batch\[2\]; pass lengths="
    with pytest.raises(LengthsError, match=message):
        list(padless.watch(batches))


# ---- what is refused ----------------------------------------------------------------------------------

x = padded(sequences([2, 3]))
packed = padless.pack(sequences([2, 3]))
NONE, ADVICE = "found no lengths in it (", "); pass lengths=, a function that returns the lengths of a batch"
PAIR = "batch[0]: Tensor (2, 9) float32, batch[1]: Tensor (2,) int64"
REFUSED = [
    (x, f"{NONE}batch: Tensor (2, 3, 2) float32{ADVICE}"),
    ((torch.rand(2, 9), torch.tensor([2, 3])), f"{NONE}{PAIR}{ADVICE}"),
    ((x, torch.tensor([-1, 3])), NONE),
    ((x, torch.tensor([2.0, 3.0])), NONE),
    ((x, torch.tensor([2, 4])), NONE),
    ((x, [2, 3], padded(sequences([1, 2])), [1, 2]), "its lengths could be those of batch[1] or batch[3] ("),
    ((packed, packed[::-1]), "its lengths could be those of batch[0] or batch[1] (batch[0]: Packed,"),
    ({"a": {"lengths": [2]}, "lengths": [3]}, "its lengths could be those of batch['a']['lengths'] or "),
    ({"attention_mask": torch.ones(2, 1, 3, 3)}, "batch['attention_mask'] must be a mask (B, T); pass lengths="),
    ({"attention_mask": torch.tensor([[0.0, -1e9]])}, "batch['attention_mask'] must hold 1 at real rows"),
    ({"lengths": [4, -1]}, "batch['lengths'][1] = -1 is negative"),
    ({"lengths": [2**62]}, "a length of 4611686018427387904 is too large: the sum overflows"),
    ({}, f"{NONE}an empty dict"),
    ([x] * 20, NONE),
]  # fmt: skip


@pytest.mark.parametrize(("batch", "message"), REFUSED, ids=[f"{i}" for i in range(len(REFUSED))])
def test_what_cannot_be_known_is_refused_not_guessed(batch, message):
    with pytest.raises(LengthsError) as caught:
        list(padless.watch([batch]))
    assert str(caught.value).startswith(f"watch: batch 0: {message}"), str(caught.value)
    assert len(str(caught.value)) < 600


COUNTED = [  # and the rows of each: lengths may be of other things than the tensors beside them
    ({"image": torch.rand(2, 3, 32, 32), "captions": ["a cat", "two dogs"], "lengths": [40, 3]}, 43),
    ({"mel": torch.rand(2, 80, 100), "lengths": [16_000, 9_000]}, 25_000),
    ({"x": torch.rand(130, 80), "lengths": [90, 40]}, 130),
    ({"x": [torch.rand(90, 2), torch.rand(40, 2)], "static": torch.rand(2, 200), "lengths": [90, 40]}, 130),
    ({"a": packed, "b": {"lengths": [9, 9]}}, 5),
    ({"a": packed, "attention_mask": torch.ones(2, 4), "lengths": [5, 1]}, 5),
    ({"attention_mask": torch.eye(2), "x": torch.rand(2, 9), "lengths": [9, 9]}, 2),
]


@pytest.mark.parametrize(("batch", "rows"), COUNTED, ids=[f"{i}" for i in range(len(COUNTED))])
def test_what_fits_no_tensor_is_counted(batch, rows):
    watched = padless.watch([batch])
    assert len(list(watched)) == 1
    assert watched.waste.rows == rows
    assert "they would be" in str(watched) or "attention_mask" in batch


@pytest.mark.parametrize("lengths", [[1, 2, 5], [1, 2], [3, 3, 3, 2, 2, 2]])
def test_given_lengths_may_be_of_other_things_than_the_tensors(lengths):
    watched = padless.watch([torch.zeros(3, 4)], lengths=lambda batch: lengths)
    assert len(list(watched)) == 1
    assert watched.waste.cells == len(lengths) * max(lengths)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_strided_nested_tensor_is_refused_by_its_layout():
    nested = torch.nested.nested_tensor(sequences([2, 3]), layout=torch.strided)
    with pytest.raises(
        LengthsError, match=r"^watch: batch 0: batch\['x'\] is a nested tensor of layout torch.strided"
    ):
        list(padless.watch([{"x": nested}]))
    watched = padless.watch([{"x": nested, "lengths": [2, 3]}])
    assert len(list(watched)) == 1 and watched.waste.cells == 6
    with pytest.raises(
        LengthsError, match=r"could be those of batch\[0\] or batch\[1\] \(batch\[0\]: Packed,"
    ):
        list(padless.watch([(packed, packed[::-1], nested)]))


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((x, [2, 3]), (x, [2, 3, 1]), "batch[1] has 3 lengths, but batch[0] has 2 sequences"),
        ((x, [2, 3]), ("x", [2, 3]), "batch[0] is not a grid, as in the batches before"),
        (
            {"lengths": [2]},
            {"n": [2]},
            "there is no batch['lengths'], which held the lengths in the batches before",
        ),
        (
            ({"lengths": [2]},),
            5,
            "there is no batch[0]['lengths'], which held the lengths in the batches before",
        ),
        (
            {"lengths": [2]},
            {"lengths": None},
            "batch['lengths'] is not whole numbers (B,), as in the batches before",
        ),
        (packed, x, "batch is not packed, as in the batches before"),
        ((x, [2, 3]), (x, [2, 4]), "batch[1] has a length of 4, but batch[0] has 3 steps"),
    ],
    ids=["count", "no grid", "key", "path", "kind", "packed", "too long"],
)
def test_a_batch_unlike_those_before_is_refused(first, second, message):
    with pytest.raises(LengthsError) as caught:
        list(padless.watch([first, second]))
    assert str(caught.value).startswith(f"watch: batch 1: {message}"), str(caught.value)


def test_labels_beyond_the_true_lengths_are_refused():
    """What is behind them is padding, but so is what is before them."""
    inputs = padded(sequences([2, 3]), 7)
    with pytest.raises(LengthsError, match="found no lengths"):
        list(padless.watch([(inputs, torch.tensor([7, 8]))]))


def test_an_error_in_the_caller_s_function_stays_his_own():
    with pytest.raises(KeyError, match="^'n'$"):
        list(padless.watch([{}], lengths=itemgetter("n")))


def test_what_the_caller_s_function_gives_is_checked():
    with pytest.raises(LengthsError, match=r"^watch: batch 0: lengths\[1\] = 2\.5 is not a whole number$"):
        list(padless.watch([{}], lengths=lambda batch: [1, 2.5]))


# ---- the loader ---------------------------------------------------------------------------------------

LOADERS: dict[str, Callable[[], Any]] = {
    "DataLoader": lambda: loader_of(padless.pack),
    "two workers": lambda: loader_of(padless.pack, num_workers=2),
    "kept workers": lambda: loader_of(padless.pack, num_workers=1, persistent_workers=True),
    "IterableDataset": lambda: DataLoader(Sequence(sequences(LENGTHS)), batch_size=SIZE, collate_fn=padless.pack),
}  # fmt: skip


@pytest.mark.parametrize("kind", LOADERS)
def test_two_epochs_of_any_loader_are_counted_and_it_is_what_it_was(kind):
    loader = LOADERS[kind]()
    before = dict(vars(loader))
    with padless.watch(loader, report=None) as watched:
        assert isinstance(loader, DataLoader) and type(loader).__name__ == "DataLoader"
        for _ in range(2):
            assert sum(len(batch) for batch in loader) == len(LENGTHS)
    assert type(loader) is DataLoader
    assert {name: vars(loader)[name] for name in before if name != "_iterator"} == {
        name: before[name] for name in before if name != "_iterator"
    }
    assert watched.waste.batches == waste(LENGTHS, batch_size=SIZE).batches * 2
    assert sum(len(batch) for batch in loader) == len(LENGTHS)  # not counted
    assert len(watched.waste.batches) == 6
    del loader._iterator  # ends kept workers


def test_batches_are_passed_on_as_they_are():
    batches = [{"lengths": [2, 3]}, {"lengths": [1]}]
    watched = padless.watch(batches)
    assert all(seen is batch for seen, batch in zip(watched, batches, strict=True))


def test_the_loader_is_as_it_was_after_an_error_and_what_was_seen_is_reported():
    loader, said = loader_of(padless.pack), []
    with pytest.raises(ZeroDivisionError), padless.watch(loader, report=said.append):
        for _ in loader:
            raise ZeroDivisionError
    assert type(loader) is DataLoader
    assert len(said) == 1 and "in 1 batch " in said[0]


def test_the_loader_is_as_it_was_after_batches_that_are_refused_and_nothing_is_reported():
    loader, said = loader_of(padded), []
    with pytest.raises(LengthsError), padless.watch(loader, report=said.append):
        next(iter(loader))
    assert type(loader) is DataLoader and said == []


def test_the_report_is_printed_where_nobody_says_otherwise(capsys):
    loader = loader_of(padless.pack)
    with padless.watch(loader) as watched:
        assert capsys.readouterr().out == ""
        list(loader)
    assert capsys.readouterr() == (f"{watched}\n", "")


def test_a_watch_that_saw_nothing_says_so(capsys):
    with padless.watch(loader_of(padless.pack)):
        pass
    assert capsys.readouterr().out == "padless.watch: no batches were counted\n"


def test_numbers_can_be_had_in_the_midst_of_it():
    loader = loader_of(padless.pack)
    with padless.watch(loader, report=None) as watched:
        for done, _ in enumerate(loader, 1):
            assert len(watched.waste.batches) == done
        assert len(list(watched)) == 3  # the watch itself gives the loader's batches too, counted once
    assert len(watched.waste.batches) == 6


def test_an_iterator_that_outlives_the_watch_goes_on_uncounted():
    loader = loader_of(padless.pack)
    with padless.watch(loader, report=None) as watched:
        batches = iter(loader)
        next(batches)
    assert len(list(batches)) == 2 and len(watched.waste.batches) == 1


def test_a_copy_of_a_watched_loader_is_not_watched():
    loader = loader_of(padless.pack)
    with padless.watch(loader, report=None) as watched:
        assert len(list(copy.copy(loader))) == 3
    assert watched.waste.batches == ()


def test_the_iterator_has_what_the_loader_s_own_has():
    loader = loader_of(padless.pack)
    with padless.watch(loader, report=None):
        batches = iter(loader)
        assert iter(batches) is batches and batches._num_workers == 0  # type: ignore[attr-defined]


def test_a_loader_is_watched_once_at_a_time_and_again_later():
    loader = loader_of(padless.pack)
    with padless.watch(loader, report=None):
        again = padless.watch(loader)
        with pytest.raises(PadlessError, match="^watch: this DataLoader is already watched$"):
            again.__enter__()
    with padless.watch(loader, report=None) as watched:
        list(loader)
    assert len(watched.waste.batches) == 3


def test_any_class_of_python_can_be_watched():
    class Batches:
        __slots__ = ("batches",)

        def __iter__(self) -> Any:
            yield from self.batches

    loader = Batches()
    loader.batches = [packed, packed]
    assert len(watched_waste(loader).batches) == 2
    assert type(loader) is Batches


@pytest.mark.parametrize(
    "loader", [[packed], iter([packed]), (b for b in [packed])], ids=["list", "iterator", "generator"]
)
def test_what_is_not_written_in_python_is_watched_by_iterating_over_the_watch(loader):
    name = type(loader).__name__
    message = f"^watch: {name} is not written in Python, so its batches cannot be seen in place; iterate over the watch"
    with pytest.raises(TypeError, match=message), padless.watch(loader):
        pass
    watched = padless.watch(loader)
    assert len(list(watched)) == 1 and watched.waste.rows == 5
    assert str(watched).endswith("(lengths: batch, a Packed)")


def test_what_cannot_be_iterated_is_reported_at_once():
    with pytest.raises(TypeError, match="^watch takes an iterable loader, got int$"):
        padless.watch(5)
    with pytest.raises(TypeError, match="^watch: lengths must be a function of a batch, got list$"):
        padless.watch([packed], lengths=[2, 3])  # type: ignore[arg-type]
    message = "^watch: report must be a function of a text, or None for no report, got bool$"
    with pytest.raises(TypeError, match=message):
        padless.watch([packed], report=False)  # type: ignore[arg-type]


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), max_size=4))
def test_empty_batches_count_nothing(batches):
    watched = padless.watch([{"lengths": torch.tensor(batch, dtype=torch.int64)} for batch in batches])
    assert len(list(watched)) == len(batches)
    assert watched.waste == padless.Waste.of(
        b for batch in batches for b in (waste(batch).batches or (BatchWaste(0, 0, 0, 0, 0),))
    )


def test_the_name_can_be_had_without_torch():
    code = "import padless, sys; padless.watch; assert not {'torch', 'numpy'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
