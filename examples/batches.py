"""Batches by length into a model, stopped in mid-epoch and resumed."""

import torch
from torch.utils.data import DataLoader

import padless
from padless.data import LengthBatchSampler, collate

torch.manual_seed(0)
lengths = torch.distributions.LogNormal(3.5, 0.7).sample((600,)).int().clamp(1, 200).tolist()
samples = [{"x": torch.randn(n, 8), "label": n > 40} for n in lengths]


def sampler_and_loader():
    sampler = LengthBatchSampler(lengths, tokens=1000, policy="bucket", pool=200)
    return sampler, DataLoader(samples, batch_sampler=sampler, collate_fn=collate, num_workers=2)


model = padless.accelerate(torch.nn.GRU(8, 16))
sampler, loader = sampler_and_loader()
for epoch in range(2):
    sampler.set_epoch(epoch)
    for done, batch in enumerate(loader, sampler.start + 1):
        _, last = model(batch["x"])  # a Packed: real rows only
        assert last.shape == (1, len(batch["label"]), 16)
        if epoch == 1 and done == 10:
            break
state = sampler.state_dict(batches_done=done)  # goes into the checkpoint
print(f"stopped in epoch {state['epoch']} after {done} of {len(loader)} batches of at most 1,000 rows")

sampler, loader = sampler_and_loader()
sampler.load_state_dict(state)
rest = [batch["x"] for batch in loader]
print(f"resumed with {len(rest)} batches of at least {min(b.data.shape[0] for b in rest)} rows")
