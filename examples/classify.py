"""Learns to tell spices from stones by their letters: packed rows, an LSTM, the last states of both directions."""

import torch

import padless

WORDS = {
    "spice": "allspice basil cardamom fenugreek lemongrass nutmeg peppermint saffron tarragon turmeric thyme mint",
    "stone": "agate basalt chalcedony feldspar gneiss hornblende marble obsidian quartz serpentine slate tuff",
}
words = [word for line in WORDS.values() for word in line.split()]
targets = torch.tensor([kind for kind, line in enumerate(WORDS.values()) for _ in line.split()])


class Reader(torch.nn.Module):
    """Letters in, one score per class out."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(26, 16)
        self.lstm = padless.nn.LSTM(16, 32, bidirectional=True)
        self.head = torch.nn.Linear(64, classes)

    def forward(self, letters: padless.Packed) -> torch.Tensor:
        _, (h, _) = self.lstm(letters.map(self.embed))
        return self.head(torch.cat([h[0], h[1]], dim=1))


torch.manual_seed(0)
letters = padless.pack([torch.tensor([ord(letter) - ord("a") for letter in word]) for word in words])
print(padless.waste(letters.lengths))

model = Reader(len(WORDS))
optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
for epoch in range(30):
    scores = model(letters)
    loss = torch.nn.functional.cross_entropy(scores, targets)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if epoch % 10 == 9:
        right = int((scores.argmax(dim=1) == targets).sum())
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, {right} of {len(words)} right")
