"""torch's RNN, LSTM and GRU on the real rows of a batch, and layers that respect sequence boundaries."""

from .conv import Conv1d
from .crf import CRF
from .dropout import LockedDropout
from .recurrent import GRU, LSTM, RNN
from .stacked import LayerNormGRU, LayerNormGRUCell, LayerNormLSTM, LayerNormLSTMCell, Recurrent

__all__ = [
    "CRF",
    "GRU",
    "LSTM",
    "RNN",
    "Conv1d",
    "LayerNormGRU",
    "LayerNormGRUCell",
    "LayerNormLSTM",
    "LayerNormLSTMCell",
    "LockedDropout",
    "Recurrent",
]
