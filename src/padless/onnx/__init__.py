"""ONNX export: padless layers become ONNX's own LSTM, GRU and RNN with `sequence_lens`."""

from .exporting import export, translation_table

__all__ = ["export", "translation_table"]
