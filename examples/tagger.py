"""A BiLSTM-CRF tagger from token ids to tags, without a padded tensor anywhere."""

import torch

import padless
from padless import Packed, pack

torch.manual_seed(0)
B, I, O = 1, 2, 0  # noqa: E741 - the first token of a name, the others, and no name


def sentence() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens under 20 are words, 20 to 29 may begin a name, 30 to 39 go on with one if they follow it."""
    tokens = torch.randint(0, 40, (int(torch.randint(3, 25, ())),))
    tags, inside = [], False
    for token in tokens.tolist():
        inside = 20 <= token < 30 or (inside and token >= 30)
        tags.append(O if not inside else B if token < 30 else I)
    return tokens, torch.tensor(tags)


class Tagger(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(40, 16)
        self.drop = padless.nn.LockedDropout(0.1)
        self.rnn = padless.nn.LSTM(16, 16, bidirectional=True)
        self.scores = torch.nn.Linear(32, 3)
        self.crf = padless.nn.CRF(3)

    def emissions(self, tokens: Packed) -> Packed:
        return self.rnn(self.drop(tokens.map(self.embed)))[0].map(self.scores)


def batch(size: int) -> tuple[Packed, Packed]:
    tokens, tags = zip(*(sentence() for _ in range(size)), strict=True)
    return pack(tokens), pack(tags)


model = Tagger()
optimizer = torch.optim.Adam(model.parameters(), 0.02)
for _ in range(60):
    tokens, tags = batch(32)
    loss = -model.crf(model.emissions(tokens), tags).sum() / len(tokens.data)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

model.eval()
tokens, tags = batch(200)
with torch.no_grad():
    found = model.crf.decode(model.emissions(tokens))
right = (found.data == tags.data).float().mean().item()
print(f"{len(tokens)} sentences, {len(tokens.data)} tokens: {100 * right:.1f}% of the tags are right")
