"""Layers: parameters and options of torch's own, computed on the real rows only."""

from .recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN"]
