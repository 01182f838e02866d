"""Switches a model of torch's own layers to padless and back, and compares results and gradients."""

import torch
from torch.nn.utils.rnn import pack_sequence

import padless

torch.manual_seed(0)
model = torch.nn.GRU(8, 16, num_layers=2, bidirectional=True)
packed = pack_sequence([torch.randn(n, 8) for n in (9, 4, 7, 1)], enforce_sorted=False)


def run() -> list[torch.Tensor]:
    """Outputs, last states, and the gradient of every parameter."""
    model.zero_grad()
    output, h = model(packed)
    (output.data.square().sum() + h.square().sum()).backward()
    return [output.data.detach(), h.detach(), *(parameter.grad.clone() for parameter in model.parameters())]


ours_and_theirs = []
for switch in (padless.restore, padless.accelerate):
    switch(model)
    print(f"{type(model).__module__}.{type(model).__name__}")
    ours_and_theirs.append(run())

scale = max(float(value.abs().max()) for value in ours_and_theirs[0])
difference = max(float((a - b).abs().max()) for a, b in zip(*ours_and_theirs, strict=True))
print(f"largest difference, relative to the largest value: {difference / scale:.0e}")
assert difference < 1e-5 * scale
