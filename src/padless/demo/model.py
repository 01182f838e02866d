"""The demo's model in three versions with the same weights: padless, torch packed and torch padded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pack_sequence as torch_pack_sequence
from torch.nn.utils.rnn import pad_sequence

from ..nn import LSTM
from ..rnn import PackedSequence, pack_sequence

__all__ = ["PaddedReader", "Reader", "packed_twin", "padded_twin"]


class Reader(torch.nn.Module):
    """Classifies functions, as rows without padding: returns a score for each class.

    Embedding, one bidirectional LSTM, and a linear layer on the final states of both directions.

    Args:
        by_torch: use torch's packing and LSTM instead of padless's; weights and results are the same.
    """

    def __init__(
        self,
        vocabulary_size: int,
        classes: int,
        *,
        embedding_size: int,
        hidden_size: int,
        by_torch: bool = False,
    ) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary_size, embedding_size)
        self.pack = torch_pack_sequence if by_torch else pack_sequence
        self.lstm = (torch.nn.LSTM if by_torch else LSTM)(embedding_size, hidden_size, bidirectional=True)
        self.head = torch.nn.Linear(2 * hidden_size, classes)

    def forward(self, sequences: Sequence[Tensor]) -> Tensor:
        """Logits `(B, classes)` of B sequences of token ids, each `(length,)` int64, in their order."""
        tokens = self.pack(list(sequences), enforce_sorted=False)
        rows = PackedSequence(
            self.embedding(tokens.data), tokens.batch_sizes, tokens.sorted_indices, tokens.unsorted_indices
        )
        _, (h_n, _) = self.lstm(rows)  # (2, B, H): the last state of each direction of each sequence
        return self.head(torch.cat([h_n[0], h_n[1]], dim=1))


class PaddedReader(torch.nn.Module):
    """The same function, computed on a padded grid by torch.

    A bidirectional torch LSTM on a padded grid would start its reverse direction in the padding, and its final state
    would differ. So each direction is a separate LSTM: the reverse one reads every sequence flipped within its length,
    and from both the state after the last token of each sequence is gathered. The number of computed cells is the
    same, 2 * T * B, and so is the time, within a tenth (docs/demo.md).
    """

    def __init__(self, vocabulary_size: int, classes: int, *, embedding_size: int, hidden_size: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(vocabulary_size, embedding_size)
        self.ahead = torch.nn.LSTM(embedding_size, hidden_size)
        self.reverse = torch.nn.LSTM(embedding_size, hidden_size)
        self.head = torch.nn.Linear(2 * hidden_size, classes)

    def forward(self, sequences: Sequence[Tensor]) -> Tensor:
        """Logits `(B, classes)`, as `Reader.forward`."""
        flipped = [sequence.flip(0) for sequence in sequences]
        grids = self.embedding(pad_sequence([*sequences, *flipped]))  # (T, 2 B, E)
        ahead, reverse = grids.split(len(sequences), dim=1)
        last = torch.tensor([len(sequence) - 1 for sequence in sequences])
        each = torch.arange(len(sequences))
        return self.head(
            torch.cat([self.ahead(ahead)[0][last, each], self.reverse(reverse)[0][last, each]], dim=1)
        )


def packed_twin(reader: Reader, *, by_torch: bool) -> Reader:
    """A copy of `reader` that runs on torch or on padless."""
    twin = Reader(**_sizes(reader), by_torch=by_torch)
    twin.load_state_dict(reader.state_dict())
    return twin


def padded_twin(reader: Reader) -> PaddedReader:
    """A copy of `reader` that computes on padded grids."""
    twin = PaddedReader(**_sizes(reader))
    for name, tensor in reader.state_dict().items():
        name = name.replace("lstm.", "reverse." if name.endswith("_reverse") else "ahead.")
        twin.get_parameter(name.removesuffix("_reverse")).data.copy_(tensor)
    return twin


def _sizes(reader: Reader) -> dict[str, int]:
    return {
        "vocabulary_size": reader.embedding.num_embeddings,
        "classes": reader.head.out_features,
        "embedding_size": reader.embedding.embedding_dim,
        "hidden_size": reader.lstm.hidden_size,
    }
