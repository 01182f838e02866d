"""Fails where the installed padless has no native kernels, or where they compute nothing."""

import torch

import padless
from padless import backends

assert "native" in backends.available(), "the wheel has no native kernels"
layer = padless.nn.LSTM(8, 16)
with backends.use("native"):
    output, _ = layer(padless.pack([torch.randn(3, 8), torch.randn(5, 8)]))
assert output.data.shape == (8, 16)
