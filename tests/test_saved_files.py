"""Files that earlier versions wrote are loaded by this one."""

from __future__ import annotations

from pathlib import Path

import torch

import padless

GOLDENS = Path(__file__).parent / "goldens"


def test_a_model_and_a_batch_saved_by_version_0_1_load_and_compute_the_same():
    saved = torch.load(GOLDENS / "saved-by-0.1.pt", weights_only=False)
    assert type(saved["packed"]) is padless.Packed
    assert saved["packed"].lengths.tolist() == [3, 0, 1, 2]
    assert torch.equal(saved["packed"].data, torch.arange(6.0).reshape(6, 1) / 2)
    assert saved["waste"] == padless.waste([4, 6, 8])
    assert type(saved["model"][0]) is padless.nn.LSTM
    _, (last, _) = saved["model"][0](saved["packed"])
    torch.testing.assert_close(last, saved["last"])


def test_a_batch_saved_by_version_0_1_loads_as_weights_only():
    packed = torch.load(GOLDENS / "packed-by-0.1.pt", weights_only=True)
    assert type(packed) is padless.Packed and packed.lengths.tolist() == [3, 0, 1, 2]
