"""A decoder with attention: trained on packed targets, then generating with a batch that shrinks."""

import torch

import padless
from padless import Packed, losses, ops, pack

torch.manual_seed(0)
START, STOP, WORDS, WIDTH = 10, 11, 12, 48


def captions(size: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """An "image" is a row of regions, each showing a digit or nothing (10); its caption names the digits in order."""
    regions = torch.randint(0, 11, (size, 5))
    return regions, [torch.cat([r[r < 10], torch.tensor([STOP])]) for r in regions]


class Decoder(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.look = torch.nn.Embedding(11, WIDTH)
        self.place = torch.nn.Parameter(torch.randn(5, WIDTH))
        self.word = torch.nn.Embedding(WORDS, WIDTH)
        self.cell = torch.nn.GRUCell(2 * WIDTH, WIDTH)
        self.out = torch.nn.Linear(2 * WIDTH, WORDS)

    def start(self, regions: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        memory = self.look(regions) + self.place
        return memory, memory.mean(1)

    def step(self, words: torch.Tensor, state: tuple) -> tuple[torch.Tensor, tuple]:
        """Scores of the next word for the n captions that go on; `state` has n rows too."""
        memory, h = state
        weights = (memory @ h[:, :, None]).squeeze(2).div(WIDTH**0.5).softmax(1)
        seen = (weights[:, :, None] * memory).sum(1)
        h = self.cell(torch.cat([self.word(words), seen], 1), h)
        return self.out(torch.cat([h, seen], 1)), (memory, h)


model = Decoder()
optimizer = torch.optim.Adam(model.parameters(), 0.01)
for _ in range(130):
    regions, words = captions(32)
    targets = pack(words)
    inputs = ops.shift(targets, 1, fill=START)  # the word before
    scores, _ = padless.scan(model.step, inputs, model.start(regions))
    loss = losses.cross_entropy(scores, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

regions, words = captions(200)
with torch.no_grad():
    written: Packed = padless.decode(
        model.step, torch.full((200,), START), model.start(regions), stop=STOP, max_length=8
    )
right = sum(torch.equal(a, b) for a, b in zip(written, words, strict=True))
print(f"loss {loss.item():.3f}, {right} of 200 captions are right")
