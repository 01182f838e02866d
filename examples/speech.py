"""Frames of different lengths to labels: convolution, GRU and CTC, none of which sees padding."""

import torch

import padless
from padless import losses, ops, pack

torch.manual_seed(0)
SOUNDS = torch.randn(5, 12)  # sound 0 is silence, which is also CTC's blank


def utterance() -> tuple[torch.Tensor, torch.Tensor]:
    """Some sounds of 4 to 9 noisy frames each, with silence between them."""
    labels = torch.randint(1, 5, (int(torch.randint(1, 6, ())),))
    parts = []
    for label in labels.tolist():
        parts += [SOUNDS[label].repeat(int(torch.randint(4, 10, ())), 1), SOUNDS[0].repeat(2, 1)]
    frames = torch.cat(parts)
    return frames + 0.3 * torch.randn_like(frames), labels


class Recogniser(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = padless.nn.Conv1d(12, 32, 3, stride=2, padding=1)
        self.rnn = padless.nn.GRU(32, 32, bidirectional=True)
        self.out = torch.nn.Linear(64, 5)

    def forward(self, frames: padless.Packed) -> padless.Packed:
        return self.rnn(self.conv(frames).map(torch.relu))[0].map(self.out)


def batch(size: int) -> tuple[padless.Packed, padless.Packed]:
    frames, labels = zip(*(utterance() for _ in range(size)), strict=True)
    return pack(frames), pack(labels)


model = Recogniser()
optimizer = torch.optim.Adam(model.parameters(), 0.01)
for _ in range(40):
    frames, labels = batch(32)
    loss = losses.ctc_loss(model(frames), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

frames, labels = batch(100)
with torch.no_grad():
    best = model(frames).map(lambda scores: scores.argmax(1))
# Greedy decoding: one of each run of equal labels, without the blanks.
runs = [b[b.diff(prepend=torch.tensor([-1])) != 0] for b in best]
heard = [r[r > 0] for r in runs]
right = sum(torch.equal(a, b) for a, b in zip(heard, labels, strict=True))
longest = int(ops.sum(frames.map(lambda rows: torch.ones(len(rows)))).max())
print(f"frames up to {longest} a sequence; loss {loss.item():.2f}, {right} of 100 are right")
