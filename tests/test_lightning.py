"""Lightning's Trainer with a LengthBatchSampler and nothing between them: epochs, ranks and resuming in mid-epoch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from padless.data import LengthBatchSampler, collate, plan

lightning = pytest.importorskip("lightning")
pytestmark = [
    pytest.mark.filterwarnings(
        "ignore::UserWarning"
    ),  # Lightning's own, about workers, checkpoints and torch
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

LENGTHS = [n % 7 + 1 for n in range(30)]
SAMPLES = [{"x": torch.ones(n), "index": i} for i, n in enumerate(LENGTHS)]
QUIET: dict[str, Any] = {
    "accelerator": "cpu",
    "logger": False,
    "enable_progress_bar": False,
    "enable_model_summary": False,
}


class Model(lightning.LightningModule):
    def __init__(self, kind: Any = torch.utils.data.DataLoader, workers: int = 0) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.kind, self.workers = kind, workers
        self.seen: list[tuple[int, list[int]]] = []

    def training_step(self, batch: dict[str, Any], number: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch["index"].tolist()))
        return self.layer(batch["x"].data[:, None]).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self) -> Any:
        sampler = LengthBatchSampler(LENGTHS, batch_size=4, policy="bucket")
        return self.kind(SAMPLES, batch_sampler=sampler, collate_fn=collate, num_workers=self.workers)


def planned(epochs: int, **place: int) -> list[tuple[int, list[int]]]:
    plans = [plan(LENGTHS, batch_size=4, policy="bucket", epoch=epoch, **place) for epoch in range(epochs)]
    return [(epoch, batch) for epoch, batches in enumerate(plans) for batch in batches]


def test_every_epoch_is_another_without_a_call_of_set_epoch(tmp_path):
    model = Model()
    trainer = lightning.Trainer(max_epochs=3, enable_checkpointing=False, default_root_dir=tmp_path, **QUIET)
    trainer.fit(model)
    assert model.seen == planned(3)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_checkpoint_in_mid_epoch_resumes_exactly_with_a_stateful_loader(workers, tmp_path):
    kind = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def train(folder: Path, checkpoint: str | None = None) -> list[tuple[int, list[int]]]:
        model = Model(kind, workers)
        saving = lightning.pytorch.callbacks.ModelCheckpoint(folder, every_n_train_steps=5, save_top_k=-1)
        trainer = lightning.Trainer(max_epochs=2, callbacks=[saving], default_root_dir=folder, **QUIET)
        trainer.fit(model, ckpt_path=checkpoint)
        return model.seen

    assert train(tmp_path) == planned(2)
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert [path.stem for path in checkpoints] == ["epoch=0-step=5", "epoch=1-step=10", "epoch=1-step=15"]
    for path, done in zip(checkpoints, (5, 10, 15), strict=True):
        assert train(tmp_path / path.stem, str(path)) == planned(2)[done:]


@pytest.mark.slow
@pytest.mark.parametrize("own", [True, False])
def test_two_ranks_share_each_epoch_once_lightning_leaves_the_sampler_alone(own, tmp_path):
    command = [sys.executable, "-W", "ignore", __file__, str(tmp_path), str(int(not own))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    if own:
        assert done.returncode == 0, done.stderr
        for rank in (0, 1):
            seen = json.loads((tmp_path / f"{rank}.json").read_text())
            assert list(map(tuple, seen)) == planned(2, world_size=2, rank=rank)
    else:
        assert done.returncode != 0 and "use_distributed_sampler=False" in done.stderr


def main(folder: Path, *, lightnings_sampler: bool) -> None:
    """Trains on two ranks, each a process that runs this file, and leaves what each has seen."""
    model = Model()
    trainer = lightning.Trainer(
        max_epochs=2,
        devices=2,
        strategy="ddp",
        use_distributed_sampler=lightnings_sampler,
        enable_checkpointing=False,
        default_root_dir=folder,
        **QUIET,
    )
    trainer.fit(model)
    (folder / f"{trainer.global_rank}.json").write_text(json.dumps(model.seen))


if __name__ == "__main__":
    main(Path(sys.argv[1]), lightnings_sampler=sys.argv[2] == "1")
