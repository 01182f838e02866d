"""The batch sampler: what a plan says, through a DataLoader, and on from any place of it."""

from __future__ import annotations

import json
import pickle
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from padless import StateError
from padless.data import LengthBatchSampler, plan

from .. import strategies

LENGTHS = [int(n) for n in np.random.default_rng(0).integers(0, 40, 57)]
INDICES = list(range(len(LENGTHS)))
OPTIONS = [
    {"batch_size": 4},
    {"batch_size": 3, "policy": "bucket", "pool": 12},
    {"tokens": 60, "policy": "bucket", "pool": 12},
    {"tokens": 60, "policy": "binpack", "pool": 20},
    {"tokens": 60, "policy": "sorted", "pool": 20},
    {"tokens": 60, "policy": "random", "pool": 20, "padded": True, "world_size": 2, "rank": 1},
]
options = pytest.mark.parametrize(
    "options", OPTIONS, ids=lambda options: "-".join(map(str, options.values()))
)


def identity(batch: Any) -> Any:
    return batch


def loader_of(sampler: LengthBatchSampler, kind: type = DataLoader, **settings: Any) -> DataLoader[Any]:
    return kind(INDICES, batch_sampler=sampler, collate_fn=identity, **settings)


def stateful_loader() -> type:
    return pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader


# ---- plans, epoch after epoch -----------------------------------------------------------------------


@options
def test_an_epoch_is_its_plan(options):
    sampler = LengthBatchSampler(LENGTHS, seed=3, **options)
    for epoch in (0, 2, 1):
        sampler.set_epoch(epoch)
        expected = plan(LENGTHS, seed=3, epoch=epoch, **options)
        assert len(sampler) == len(expected)
        assert list(sampler) == expected
        assert list(sampler) == expected  # once more, from the start


@options
def test_the_number_of_batches_is_the_same_before_within_and_after_an_epoch(options):
    sampler = LengthBatchSampler(LENGTHS, **options)
    drawing = iter(sampler)
    next(drawing)
    within = len(sampler)
    drawn = 1 + len(list(drawing))
    assert within == drawn == len(sampler) == len(LengthBatchSampler(LENGTHS, **options))


def test_batches_are_lists_of_python_integers():
    for batch in LengthBatchSampler(np.array(LENGTHS), batch_size=4):
        assert type(batch) is list and {type(i) for i in batch} == {int}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_yields_the_plan_with_and_without_workers(workers):
    sampler = LengthBatchSampler(LENGTHS, batch_size=4, policy="bucket")
    loader = loader_of(sampler, num_workers=workers, persistent_workers=workers > 0)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        expected = plan(LENGTHS, batch_size=4, policy="bucket", epoch=epoch)
        assert len(loader) == len(expected)
        assert list(loader) == expected


# ---- stopping, and going on ---------------------------------------------------------------------------


@given(lengths=strategies.lengths(min_batch=1), where=st.data())
@pytest.mark.parametrize("options", OPTIONS[:-1], ids=lambda options: "-".join(map(str, options.values())))
def test_going_on_at_any_place_equals_an_undisturbed_epoch(options, lengths, where):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "lengths.* is over tokens")
        whole, first, second = (LengthBatchSampler(lengths, seed=1, **options) for _ in range(3))
    for sampler in (whole, first):
        sampler.set_epoch(5)
    undisturbed = list(whole)
    done = where.draw(st.integers(0, len(undisturbed)))
    drawing = iter(first)
    begun = [next(drawing) for _ in range(done)]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.epoch == 5 and second.start == done
    assert begun + list(second) == undisturbed
    assert list(second) == undisturbed  # and the next iteration is whole again


@options
def test_going_on_works_at_every_place_and_after_another_stop(options):
    undisturbed = list(LengthBatchSampler(LENGTHS, **options))
    for done in range(len(undisturbed) + 1):
        sampler = LengthBatchSampler(LENGTHS, **options)
        sampler.load_state_dict(LengthBatchSampler(LENGTHS, **options).state_dict(batches_done=done))
        drawing = iter(sampler)
        more = [next(drawing) for _ in range((len(undisturbed) - done) // 2)]
        assert undisturbed[:done] + more == undisturbed[: done + len(more)]
        last = LengthBatchSampler(LENGTHS, **options)
        last.load_state_dict(sampler.state_dict())
        assert last.start == done + len(more)
        assert list(last) == undisturbed[done + len(more) :]
        assert len(last) == len(undisturbed)


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
def test_a_loop_that_counts_its_batches_resumes_with_any_number_of_workers(workers, persistent):
    settings: dict[str, Any] = {"num_workers": workers, "persistent_workers": persistent}
    undisturbed = [plan(LENGTHS, batch_size=4, epoch=epoch) for epoch in range(3)]
    sampler = LengthBatchSampler(LENGTHS, batch_size=4)
    sampler.set_epoch(1)
    seen = []
    for done, batch in enumerate(loader_of(sampler, **settings), sampler.start + 1):
        seen.append(batch)
        if done == 5:
            state = sampler.state_dict(batches_done=done)
            break
    resumed = LengthBatchSampler(LENGTHS, batch_size=4)
    resumed.load_state_dict(state)
    loader = loader_of(resumed, **settings)
    for epoch in (resumed.epoch, 2):
        resumed.set_epoch(epoch)
        numbers, batches = zip(*enumerate(loader, resumed.start + 1), strict=True)
        assert numbers[-1] == len(undisturbed[epoch])
        seen += batches
    assert seen == undisturbed[1] + undisturbed[2]


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata calls it
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("every", [1, 3])
def test_a_stateful_loader_resumes_by_itself(workers, every):
    kind = stateful_loader()
    settings: dict[str, Any] = {"num_workers": workers, "snapshot_every_n_steps": every}
    undisturbed = plan(LENGTHS, tokens=60, policy="bucket", pool=12, epoch=1)
    for stop in (1, 4, len(undisturbed)):
        sampler, again = (LengthBatchSampler(LENGTHS, tokens=60, policy="bucket", pool=12) for _ in range(2))
        sampler.set_epoch(1)
        loader = loader_of(sampler, kind, **settings)
        drawing = iter(loader)
        seen = [next(drawing) for _ in range(stop)]
        state = pickle.loads(pickle.dumps(loader.state_dict()))
        resumed = loader_of(again, kind, **settings)
        resumed.load_state_dict(state)
        again.set_epoch(1)
        assert seen + list(resumed) == undisturbed
        again.set_epoch(2)
        assert list(resumed) == plan(LENGTHS, tokens=60, policy="bucket", pool=12, epoch=2)


def test_a_state_counts_what_was_drawn_unless_the_loop_counts():
    sampler = LengthBatchSampler(LENGTHS, batch_size=4)
    assert sampler.state_dict()["batches_done"] == 0
    drawing = iter(sampler)
    next(drawing), next(drawing)
    assert sampler.state_dict()["batches_done"] == 2
    assert sampler.state_dict(batches_done=1)["batches_done"] == 1
    sampler.set_epoch(1)
    next(drawing)  # of the epoch before
    assert sampler.state_dict()["batches_done"] == 0


def test_a_loaded_state_counts_as_it_did_before_anything_is_drawn():
    state = LengthBatchSampler(LENGTHS, batch_size=4).state_dict(batches_done=3)
    sampler = LengthBatchSampler(LENGTHS, batch_size=4)
    sampler.load_state_dict(state)
    assert sampler.state_dict() == state


def test_another_epoch_than_the_loaded_one_starts_at_its_start():
    sampler = LengthBatchSampler(LENGTHS, batch_size=4)
    sampler.load_state_dict(sampler.state_dict(batches_done=3))
    sampler.set_epoch(1)
    assert sampler.start == 0
    assert list(sampler) == plan(LENGTHS, batch_size=4, epoch=1)


def test_a_state_is_the_same_on_every_rank():
    states = [
        LengthBatchSampler(LENGTHS, batch_size=4, world_size=2, rank=rank).state_dict(3) for rank in (0, 1)
    ]
    assert states[0] == states[1]


def test_a_state_does_not_depend_on_the_kind_of_lengths():
    for kind in (np.uint8, np.int64, np.float32):
        sampler = LengthBatchSampler(np.array(LENGTHS, kind), batch_size=4)
        sampler.load_state_dict(LengthBatchSampler(LENGTHS, batch_size=4).state_dict())


def test_a_state_goes_through_torch_save_with_weights_only(tmp_path):
    state = LengthBatchSampler(LENGTHS, tokens=60, policy="binpack").state_dict(2)
    torch.save(state, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == state


OTHERS = [
    ("sequences", 57, 56, lambda: LengthBatchSampler(LENGTHS[1:], batch_size=4)),
    (
        "rows",
        sum(LENGTHS),
        sum(LENGTHS) + 1,
        lambda: LengthBatchSampler([LENGTHS[0] + 1, *LENGTHS[1:]], batch_size=4),
    ),
    ("policy", "random", "bucket", lambda: LengthBatchSampler(LENGTHS, batch_size=4, policy="bucket")),
    ("batch_size", 4, 5, lambda: LengthBatchSampler(LENGTHS, batch_size=5)),
    ("batch_size", 4, None, lambda: LengthBatchSampler(LENGTHS, tokens=50)),
    ("padded", False, True, lambda: LengthBatchSampler(LENGTHS, batch_size=4, padded=True)),
    ("pool", 2**18, 8, lambda: LengthBatchSampler(LENGTHS, batch_size=4, pool=8)),
    ("seed", 0, 1, lambda: LengthBatchSampler(LENGTHS, batch_size=4, seed=1)),
    ("world_size", 1, 2, lambda: LengthBatchSampler(LENGTHS, batch_size=4, world_size=2, rank=0)),
]


@pytest.mark.parametrize(("name", "theirs", "own", "other"), OTHERS, ids=[f"{o[0]}-{o[2]}" for o in OTHERS])
def test_a_state_of_another_sampler_is_refused(name, theirs, own, other):
    state = LengthBatchSampler(LENGTHS, batch_size=4).state_dict()
    sampler = other()
    with pytest.raises(StateError) as caught:
        sampler.load_state_dict(state)
    assert str(caught.value) == (
        f"this state has {name}={theirs!r}, but the sampler has {name}={own!r}: "
        f"its batches would differ from those already done"
    )
    assert sampler.start == 0


@pytest.mark.parametrize("name", ["seed", "policy", "batch_size", "place_checksum", "epoch"])
@pytest.mark.parametrize("wrong", [np.array([0, 1]), torch.zeros(2)], ids=["array", "tensor"])
def test_a_state_with_an_array_in_it_is_refused(name, wrong):
    sampler = LengthBatchSampler(LENGTHS, batch_size=4)
    with pytest.raises(StateError, match=f"^this state .*{name}"):
        sampler.load_state_dict({**sampler.state_dict(), name: wrong})


def test_a_state_of_the_same_lengths_in_another_order_is_refused():
    with pytest.raises(StateError, match=r"^this state has lengths_checksum="):
        LengthBatchSampler([1, 2], batch_size=1).load_state_dict(
            LengthBatchSampler([2, 1], batch_size=1).state_dict()
        )


def test_what_is_no_state_is_refused():
    sampler = LengthBatchSampler(LENGTHS, batch_size=4)
    for name in sampler.state_dict().keys() - {"place_checksum"}:
        state = sampler.state_dict()
        del state[name]
        with pytest.raises(StateError) as caught:
            sampler.load_state_dict(state)
        assert str(caught.value) == f"this is not the state of a LengthBatchSampler: it has no {name!r}"


@pytest.mark.parametrize("wrong", [None, 5, "state"])
def test_what_is_no_mapping_is_no_state(wrong):
    with pytest.raises(StateError) as caught:
        LengthBatchSampler(LENGTHS, batch_size=4).load_state_dict(wrong)
    assert str(caught.value) == (
        f"this is not the state of a LengthBatchSampler: it is of type {type(wrong).__name__}"
    )


@pytest.mark.parametrize(
    ("options", "damage", "message"),
    [
        ({"batch_size": 4}, {"epoch": "1"}, "epoch must be a whole number of at least 0, got '1'"),
        ({"batch_size": 4}, {"epoch": -1}, "epoch must be a whole number of at least 0, got -1"),
        (
            {"batch_size": 4},
            {"batches_done": -1},
            "batches_done must be a whole number of at least 0, got -1",
        ),
        ({"batch_size": 4}, {"batches_done": 99}, "batches_done=99, and an epoch has at most 15 batches"),
        ({"tokens": 60}, {"batches_done": 99}, "batches_done=99, and an epoch has at most 57 batches"),
        ({"tokens": 60}, {"pools_done": 99}, "pools_done=99, batches_before_pool=0 and batches_done=0"),
        (
            {"tokens": 60},
            {"batches_before_pool": 7},
            "pools_done=0, batches_before_pool=7 and batches_done=0",
        ),
        ({"tokens": 60}, {"pools_done": None}, "pools_done must be a whole number of at least 0, got None"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(options, damage, message):
    sampler = LengthBatchSampler(LENGTHS, **options)
    before = sampler.state_dict()
    with pytest.raises(StateError) as caught:
        sampler.load_state_dict({**before, **damage})
    assert str(caught.value) == f"this state is damaged: {message}"
    assert sampler.state_dict() == before


@pytest.mark.parametrize(
    "damage", [{"batches_before_pool": 1}, {"batches_done": 8}, {"epoch": 4}, {"pools_done": 2}]
)
def test_a_wrong_place_in_the_epoch_is_found_by_its_checksum(damage):
    sampler = LengthBatchSampler(LENGTHS, tokens=60, policy="bucket", pool=12)
    len(sampler)
    state = sampler.state_dict(7)
    assert state["pools_done"] == 1
    other = LengthBatchSampler(LENGTHS, tokens=60, policy="bucket", pool=12)
    with pytest.raises(StateError, match="^this state is damaged: place_checksum="):
        other.load_state_dict({**state, **damage})
    assert other.start == 0


def test_a_state_without_a_checksum_of_its_place_is_taken():
    sampler = LengthBatchSampler(LENGTHS, tokens=60, policy="bucket", pool=12)
    batches = list(sampler)
    state = sampler.state_dict(7)
    del state["place_checksum"]
    sampler.load_state_dict(state)
    assert list(sampler) == batches[7:]


def test_more_batches_done_than_there_are_is_an_error():
    sampler = LengthBatchSampler([1, 1, 1], batch_size=2)
    assert sampler.state_dict(2)["batches_done"] == 2
    for wrong, message in [
        (3, "batches_done must be at most 2, the batches of an epoch, got 3"),
        (-1, "batches_done must be a whole number of at least 0, got -1"),
    ]:
        with pytest.raises(ValueError) as caught:
            sampler.state_dict(batches_done=wrong)
        assert str(caught.value) == message


# ---- ranks --------------------------------------------------------------------------------------------


def test_rank_and_world_size_come_from_torch_distributed_where_none_are_given(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 3)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 2)
    assert list(LengthBatchSampler(LENGTHS, batch_size=4)) == plan(
        LENGTHS, batch_size=4, world_size=3, rank=2
    )
    given = LengthBatchSampler(LENGTHS, batch_size=4, world_size=2, rank=0)
    assert list(given) == plan(LENGTHS, batch_size=4, world_size=2)
    assert list(LengthBatchSampler(LENGTHS, batch_size=4, world_size=1)) == plan(LENGTHS, batch_size=4)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"world_size": 2}, "give both world_size and rank, or neither; got world_size=2"),
        ({"rank": 1}, "give both world_size and rank, or neither; got rank=1"),
        ({"world_size": 2, "rank": 2}, "rank must be below world_size=2, got 2"),
        ({"world_size": 0, "rank": 0}, "world_size must be a whole number of at least 1, got 0"),
        ({"world_size": 2, "rank": -1}, "rank must be a whole number of at least 0, got -1"),
    ],
)
def test_half_a_place_among_ranks_is_an_error(given, message):
    with pytest.raises(ValueError) as caught:
        LengthBatchSampler(LENGTHS, batch_size=4, **given)
    assert str(caught.value) == message


def test_a_sampler_pickles_with_its_place_in_the_epoch():
    sampler = LengthBatchSampler(LENGTHS, batch_size=4, policy="bucket")
    whole = list(sampler)
    sampler.load_state_dict(sampler.state_dict(3))
    assert list(pickle.loads(pickle.dumps(sampler))) == whole[3:]


def test_lengths_over_the_budget_are_told_once_and_not_in_every_epoch():
    with pytest.warns(UserWarning, match=r"^lengths\[1\] = 9 is over tokens=5") as caught:
        sampler = LengthBatchSampler([1, 9, 2], tokens=5)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    for epoch in range(3):  # where another warning would be an error
        sampler.set_epoch(epoch)
        assert len(list(sampler)) == len(sampler) == 2


def test_its_text_names_options_rank_and_epoch():
    sampler = LengthBatchSampler([4, 6, 8], tokens=20, world_size=2, rank=1)
    sampler.set_epoch(3)
    assert repr(sampler) == "LengthBatchSampler(3 lengths, tokens=20, policy='random', rank 1 of 2, epoch 3)"
