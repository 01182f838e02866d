"""Inference engines that serve an exported layer: ONNX Runtime and OpenVINO, from one ONNX graph.

Both are optional (extra `bench`) and skipped if not installed. The graph is ONNX's own LSTM, GRU or RNN operator
with `sequence_lens`, so both know where each sequence ends.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

__all__ = ["engines", "onnx_model"]

# run() -> "output" (T, B, H), "h_n" (B, H), and for an LSTM "c_n" (B, H)
Run = Callable[[], dict[str, Tensor]]
Engine = Callable[[str, torch.nn.Module, Tensor, Tensor, int], Run]

# torch stacks gates i f g o and r z n, ONNX i o f c and z r h.
_GATE_ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}
_OUTPUTS = {"output": "Y", "h_n": "Y_h", "c_n": "Y_c"}


def engines() -> dict[str, Engine]:
    """The installed engines by name; each builds a `run()` for a layer, a grid `(T, B, I)`, lengths, threads."""
    found: dict[str, Engine] = {}
    if find_spec("onnx") is None:
        return found
    if find_spec("onnxruntime") is not None:
        found["ONNX Runtime"] = _onnxruntime
    if find_spec("openvino") is not None:
        found["OpenVINO"] = _openvino
    return found


def onnx_model(cell: str, layer: torch.nn.Module, steps: int, batch: int) -> Any:
    """The `onnx.ModelProto` of a one-layer, one-direction float32 `layer` on a grid of this size.

    Inputs `X` `(T, B, I)` and `sequence_lens` `(B,)` int32; outputs `Y` `(T, 1, B, H)`, `Y_h` and `Y_c` `(1, B, H)`.
    """
    from onnx import TensorProto, checker, helper, numpy_helper  # pyright: ignore[reportMissingImports]

    parameters = {name: p.detach() for name, p in layer.named_parameters()}

    def stacked(name: str) -> Tensor:
        chunks = parameters[name].chunk(len(_GATE_ORDER[cell]))
        return torch.cat([chunks[gate] for gate in _GATE_ORDER[cell]])

    weights = {
        "W": stacked("weight_ih_l0"),
        "R": stacked("weight_hh_l0"),
        "B": torch.cat([stacked("bias_ih_l0"), stacked("bias_hh_l0")]),
    }
    width, hidden = weights["W"].shape[1], weights["R"].shape[1]
    outputs = {"Y": (steps, 1, batch, hidden), "Y_h": (1, batch, hidden)}
    options: dict[str, Any] = {"hidden_size": hidden}
    if cell == "LSTM":
        outputs["Y_c"] = (1, batch, hidden)
    if cell == "GRU":
        options["linear_before_reset"] = 1  # torch's GRU multiplies by the reset gate after the product
    node = helper.make_node(cell, ["X", "W", "R", "B", "sequence_lens"], list(outputs), **options)
    graph = helper.make_graph(
        [node],
        cell,
        [
            helper.make_tensor_value_info("X", TensorProto.FLOAT, (steps, batch, width)),
            helper.make_tensor_value_info("sequence_lens", TensorProto.INT32, (batch,)),
        ],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(w.unsqueeze(0).numpy(), name) for name, w in weights.items()],
    )
    # Opset 14 has the current LSTM, GRU and RNN; engines since 2021 read version 8 of the file format.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
    checker.check_model(model)
    return model


def _onnxruntime(cell: str, layer: torch.nn.Module, grid: Tensor, lengths: Tensor, threads: int) -> Run:
    import onnxruntime  # pyright: ignore[reportMissingImports]

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    # Its threads would otherwise keep spinning after a run, during the next contestant's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(
        onnx_model(cell, layer, *grid.shape[:2]).SerializeToString(),
        options,
        providers=["CPUExecutionProvider"],
    )
    inputs = {"X": grid.numpy(), "sequence_lens": lengths.int().numpy()}
    names = [output.name for output in session.get_outputs()]
    return lambda: _named(dict(zip(names, session.run(names, inputs), strict=True)))


def _openvino(cell: str, layer: torch.nn.Module, grid: Tensor, lengths: Tensor, threads: int) -> Run:
    import openvino  # pyright: ignore[reportMissingImports]

    core = openvino.Core()
    model = core.read_model(onnx_model(cell, layer, *grid.shape[:2]).SerializeToString())
    # On processors with bfloat16 its default precision is bfloat16, unlike that of the others.
    options = {
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    inputs = {"X": grid.numpy(), "sequence_lens": lengths.int().numpy()}
    names = [output.get_any_name() for output in model.outputs]

    def run() -> dict[str, Tensor]:
        found = request.infer(inputs, share_inputs=True, share_outputs=True)
        return _named(dict(zip(names, found.values(), strict=True)))

    return run


def _named(outputs: dict[str, Any]) -> dict[str, Tensor]:
    """The outputs in torch's shapes and names; nothing is copied."""
    return {
        ours: torch.from_numpy(outputs[theirs]).squeeze(1 if theirs == "Y" else 0)
        for ours, theirs in _OUTPUTS.items()
        if theirs in outputs
    }
