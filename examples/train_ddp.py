"""Trains an LSTM on many processes: balanced batches, exact means, and restarts that do not change the result.

    torchrun --standalone --nproc-per-node 2 --max-restarts 3 examples/train_ddp.py

Kill one of the processes (kill -9) at any moment: torchrun starts all of them again, they resume from the last
checkpoint, and the final loss and weights are those of an uninterrupted run, bit for bit on CPUs.
"""

import argparse
import gc
import hashlib
import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset

import padless
from padless.data import LengthBatchSampler, collate
from padless.losses import global_mean

LETTERS = 16
WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


class Walks(Dataset):
    """Walks around a circle of letters, each by steps of one size, one in ten astray: guess the next letter."""

    def __init__(self, size: int, seed: int) -> None:
        self.seed = seed
        lengths = np.random.default_rng(seed).lognormal(3.3, 0.7, size)
        self.lengths = lengths.clip(1, 500).astype(np.uint16)  # all that a process holds of the data

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        random = np.random.default_rng((self.seed, i))
        steps = np.full(int(self.lengths[i]) + 1, random.integers(1, LETTERS))
        astray = random.random(len(steps)) < 0.1
        steps[astray] = random.integers(LETTERS, size=astray.sum())
        letters = torch.from_numpy(steps.cumsum() % LETTERS)
        return letters[:-1], letters[1:]


class Reader(nn.Module):
    """Letters in, scores of the letters that follow out."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(LETTERS, 16)
        self.lstm = padless.nn.LSTM(16, 64)
        self.head = nn.Linear(64, LETTERS)

    def forward(self, letters: padless.Packed) -> padless.Packed:
        rows, _ = self.lstm(letters.map(self.embed))
        return rows.map(self.head)


def meet(backend: str) -> None:
    """Join the process group, on the first start or after a restart."""
    store, rank, ranks = next(rendezvous("env://"))
    # After a restart, torchrun (2.13) gives the processes the store of the first start, which still holds the old
    # addresses (pytorch issue 135712). A prefix per restart separates them. Machines count restarts independently, so
    # this works on one machine only.
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        store = distributed.PrefixStore("start " + os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    elif os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise SystemExit("for several machines give torchrun TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1")
    # The timeout is for a machine that stops responding; a process that ends is noticed at once.
    wait = timedelta(minutes=5)
    distributed.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=wait)


def over_all_ranks(reader: Reader, device: torch.device, *, fsdp: bool) -> nn.Module:
    """The model in torch's engine: the whole of it on each rank, or a part of every weight."""
    if fsdp:
        from torch.distributed.fsdp import fully_shard

        mesh = distributed.init_device_mesh(device.type, (distributed.get_world_size(),))
        fully_shard(reader.lstm, mesh=mesh)
        return fully_shard(reader, mesh=mesh)
    model = DistributedDataParallel(reader, device_ids=[device] if device.type == "cuda" else None)
    # After the first backward DDP rebuilds its buckets and sums gradients in another order. One backward on an empty
    # batch does this in advance, so a restarted run sums them in the same order as an uninterrupted one.
    model(padless.Packed(torch.zeros(0, dtype=torch.int64, device=device), [])).data.sum().backward()
    model.zero_grad()
    return model


def loss_of(model: nn.Module, batch: tuple[padless.Packed, padless.Packed]) -> tuple[Tensor, int]:
    """Sum of the losses of this rank's rows, and their number."""
    letters, following = (packed.to(next(model.parameters()).device) for packed in batch)
    loss_sum = nn.functional.cross_entropy(model(letters).data, following.data, reduction="sum")
    return loss_sum, len(following.data)


@torch.no_grad()
def loss_on(model: nn.Module, loader: DataLoader) -> float:
    """Mean loss of a row over the batches of all ranks."""
    sums, counts = zip(*(loss_of(model, batch) for batch in loader), strict=True)
    return global_mean(torch.stack(sums).sum(), sum(counts)).item()


def save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, progress: dict) -> dict[str, Tensor]:
    """Save the whole run and return the weights; `path` always holds a complete checkpoint."""
    weights, moments = get_state_dict(model, optimizer, options=WHOLE)  # with FSDP, each rank gives its part
    if distributed.get_rank() == 0:
        temporary = path.with_suffix(".tmp")
        with open(temporary, "wb") as file:
            torch.save({"model": weights, "optimizer": moments, "sampler": progress}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    return weights


def train(args: argparse.Namespace, device: torch.device) -> None:
    def say(text: str) -> None:
        if distributed.get_rank() == 0:
            print(text, flush=True)

    def batches(walks: Walks, policy: str) -> tuple[LengthBatchSampler, DataLoader]:
        # Every rank makes the same plan and takes its share: as many batches as the others, with about as many rows.
        sampler = LengthBatchSampler(walks.lengths, batch_size=args.batch_size, policy=policy)
        return sampler, DataLoader(walks, batch_sampler=sampler, collate_fn=collate)

    sampler, loader = batches(Walks(args.sequences, seed=0), "random")
    _, held_out = batches(Walks(args.sequences // 8, seed=1), "sorted")
    torch.manual_seed(0)
    model = over_all_ranks(Reader().to(device), device, fsdp=args.fsdp)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    if args.checkpoint.exists():
        state = torch.load(args.checkpoint, map_location="cpu", weights_only=True)
        moments = {"optim_state_dict": state["optimizer"], "options": WHOLE}
        set_state_dict(model, optimizer, model_state_dict=state["model"], **moments)
        sampler.load_state_dict(state["sampler"])
        say(f"resumed {args.checkpoint}: {sampler.epoch} epochs and {sampler.start} steps done")
    for epoch in range(sampler.epoch, args.epochs):
        sampler.set_epoch(epoch)
        for done, batch in enumerate(loader, sampler.start + 1):
            loss = global_mean(*loss_of(model, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if done % args.save_every == 0:
                save(args.checkpoint, model, optimizer, sampler.state_dict(done))
                say(f"epoch {epoch + 1}, step {done} of {len(sampler)}: loss {loss.item():.4f}")
        say(f"epoch {epoch + 1}: held-out loss {loss_on(model, held_out):.4f}")
    sampler.set_epoch(args.epochs)
    weights = save(args.checkpoint, model, optimizer, sampler.state_dict())
    digest = hashlib.sha256(b"".join(weight.numpy().tobytes() for weight in weights.values())).hexdigest()
    say(f"held-out loss {loss_on(model, held_out)!r}, weights {digest[:16]}")


def main() -> None:
    style = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=style)
    parser.add_argument(
        "--epochs", type=int, default=3, help="number of epochs, including those before a restart (default 3)"
    )
    parser.add_argument(
        "--sequences", type=int, default=4000, help="number of training sequences (default 4000)"
    )
    parser.add_argument(
        "--batch-size", type=int, default=32, help="sequences per step and process (default 32)"
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        default="train_ddp.pt",
        help="checkpoint file, on storage shared by all machines (default train_ddp.pt)",
    )
    parser.add_argument(
        "--save-every",
        type=int,
        default=10,
        metavar="STEPS",
        help="save a checkpoint and print the loss every STEPS steps (default 10)",
    )
    parser.add_argument("--fsdp", action="store_true", help="shard the weights across processes (FSDP)")
    args = parser.parse_args()
    if "LOCAL_RANK" not in os.environ:
        parser.error("start it by torchrun: torchrun --standalone --nproc-per-node 2 examples/train_ddp.py")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"])))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    meet("nccl" if device.type == "cuda" else "gloo")
    train(args, device)
    # Gloo aborts a process that exits while one of its threads still releases a tensor (torch 2.13). So wait for all
    # ranks, and free the model, whose reference cycles hold the group.
    distributed.barrier()
    gc.collect()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
