"""torch's recurrent layers, computed on the real rows only."""

from .recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
