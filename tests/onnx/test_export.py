"""ONNX files of models with padless layers, in ONNX Runtime, against eager mode."""

from __future__ import annotations

import os

import pytest
import torch
from torch.export import Dim
from torch.utils._pytree import tree_leaves

import padless
import padless.onnx
from padless.backends import _kernels
from padless.rnn import pack_padded_sequence, pad_packed_sequence

pytest.importorskip("onnxscript", reason="extra `onnx`")
runtime = pytest.importorskip("onnxruntime", reason="extra `bench`")
pytestmark = pytest.mark.filterwarnings("ignore")

# Every kind with an LSTM; every other cell with rows that are packed and with rows that are not.
CELLS_AND_KINDS = [
    *(("LSTM", {}, kind) for kind in ("packed", "Packed", "lengths", "padded")),
    *(("GRU", {}, kind) for kind in ("last", "last of Packed")),
    *(("GRU", {}, kind) for kind in ("packed", "lengths")),
    *(("RNN", {}, kind) for kind in ("Packed", "padded")),
    *(("RNN", {"nonlinearity": "relu", "bias": False}, kind) for kind in ("packed", "lengths")),
]
SIZES = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, {0: Dim.DYNAMIC})


class Model(torch.nn.Module):
    def __init__(self, cell, kind, **options):
        super().__init__()
        self.kind = kind
        self.embedding = torch.nn.Embedding(20, 8)
        self.rnn = getattr(padless.nn, cell)(8, 6, batch_first=True, **options)

    def forward(self, ids, lengths):
        rows = self.embedding(ids)
        if self.kind == "Packed":
            output, states = self.rnn(padless.pack(rows, lengths))
            return output.pad(), output.pad(-1.0, side="left", batch_first=False), states
        if self.kind in ("last", "last of Packed"):
            batch = (
                padless.pack(rows, lengths)
                if self.kind == "last of Packed"
                else pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
            )
            return padless.ops.last(self.rnn(batch)[0], default=0.5)
        if self.kind == "packed":
            output, states = self.rnn(
                pack_padded_sequence(rows, lengths, batch_first=True, enforce_sorted=False)
            )
            return pad_packed_sequence(output, batch_first=True)[0], states
        return self.rnn(rows, lengths=lengths) if self.kind == "lengths" else self.rnn(rows)


def batch(size, steps):
    lengths = torch.tensor([0, *torch.randint(0, steps + 1, (size - 2,)).tolist(), steps])
    return torch.randint(0, 20, (size, steps)), lengths


@pytest.mark.parametrize(("cell", "options", "kind"), CELLS_AND_KINDS)
def test_a_model_runs_in_onnx_runtime_at_other_sizes(cell, options, kind, tmp_path):
    model = Model(cell, kind, num_layers=2, bidirectional=True, **options).eval()
    path = tmp_path / "model.onnx"
    padless.onnx.export(model, batch(3, 5), path, dynamic_shapes=SIZES, verbose=False)
    session = runtime.InferenceSession(path)
    names = [each.name for each in session.get_inputs()]
    for size, steps in ((3, 5), (4, 7), (2, 9), (6, 2)):
        arguments = batch(size, steps)
        found = session.run(None, {n: a.numpy() for n, a in zip(names, arguments, strict=False)})
        for want, got in zip(tree_leaves(model(*arguments)), found, strict=True):
            torch.testing.assert_close(torch.from_numpy(got), want.detach())


def test_the_translation_table_serves_torchs_own_export(tmp_path):
    import onnx

    model = Model("GRU", "packed").eval()
    path = tmp_path / "model.onnx"
    table = padless.onnx.translation_table()
    torch.onnx.export(
        model,
        batch(3, 5),
        path,
        dynamo=True,
        custom_translation_table=table,
        dynamic_shapes=SIZES,
        verbose=False,
    )
    kinds = {node.op_type for node in onnx.load(path).graph.node}
    assert "GRU" in kinds and "Loop" not in kinds and "Scan" not in kinds


def test_a_projection_is_refused(tmp_path):
    model = Model("LSTM", "packed", proj_size=3).eval()
    with pytest.raises(Exception, match="no LSTM with a projection"):
        padless.onnx.export(model, batch(3, 5), tmp_path / "model.onnx", verbose=False)


def test_autocast_is_refused(tmp_path):
    model = Model("LSTM", "packed").eval()
    _kernels.force_isa("amx_emulated")  # where autocast multiplies bfloat16 numbers
    try:
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(Exception, match="outside of autocast"):
            padless.onnx.export(model, batch(3, 5), tmp_path / "model.onnx", verbose=False)
    finally:
        _kernels.force_isa(os.environ.get("PADLESS_ISA"))


def test_options_of_torchs_export_may_be_spelled_out(tmp_path):
    model, arguments = Model("GRU", "packed").eval(), batch(3, 5)
    program = padless.onnx.export(model, arguments, dynamo=True, custom_translation_table=None, verbose=False)
    assert "GRU" in {node.op_type for node in program.model.graph}
    with pytest.raises(ValueError, match="export: dynamo must be True"):
        padless.onnx.export(model, arguments, dynamo=False)
