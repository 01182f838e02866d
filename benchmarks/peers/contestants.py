"""The peers of `run.py`, each in the Python of its own environment: `python contestants.py NAME CASE.npz`.

Answers lines of standard input: `check FILE` writes the outputs, `time` prints the CPU seconds of one call. Every
peer computes one LSTM layer on the same rows, lengths and weights, with one thread.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

WARM_SECONDS = 0.2  # tracing and compilation are not timed


class Peer(NamedTuple):
    """One who computes the case.

    call: one whole step, timed.
    outputs: what `call` returned -> output at real rows `(N, H)`, sequence after sequence.
    """

    call: Callable[[], Any]
    outputs: Callable[[Any], Any]


class Case:
    """Grid `(B, T, I)`, lengths `(B,)` and torch's weights, of a file that `run.py` wrote."""

    def __init__(self, path: str) -> None:
        self.__dict__.update(np.load(path))
        self.batch, self.steps, self.width = self.grid.shape
        self.hidden = self.w_hh.shape[1]
        self.trains = bool(self.train)
        self.is_real = np.arange(self.steps) < self.lengths[:, None]


# ---- torch


def _torch_layer(case: Case, module: Any, dtype: str = "float32") -> Any:
    import torch

    torch.set_num_threads(1)
    layer = module.LSTM(case.width, case.hidden, batch_first=True)
    with torch.no_grad():
        for name in ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"):
            getattr(layer, name).copy_(torch.from_numpy(case.__dict__[_NAMES[name]]))
    return layer.to(getattr(torch, dtype))


_NAMES = {"weight_ih_l0": "w_ih", "weight_hh_l0": "w_hh", "bias_ih_l0": "b_ih", "bias_hh_l0": "b_hh"}


def _torch_peer(
    case: Case, layer: Any, x: Any, rows_of: Callable[[Any], Any], outputs: Callable[[Any], Any]
) -> Peer:
    import torch

    def call() -> Any:
        if not case.trains:
            with torch.inference_mode():
                return layer(x)[0]
        layer.zero_grad()
        output = layer(x)[0]
        rows_of(output).sum().backward()
        return output

    return Peer(call, lambda output: outputs(output).detach().float().numpy())


def torch_padded(case: Case, dtype: str = "float32") -> Peer:
    import torch

    layer = _torch_layer(case, torch.nn, dtype)
    is_real = torch.from_numpy(case.is_real)
    grid = torch.from_numpy(case.grid).to(getattr(torch, dtype))
    return _torch_peer(case, layer, grid, lambda o: o, lambda o: o[is_real])


def torch_packed(case: Case) -> Peer:
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    layer, lengths = _torch_layer(case, torch.nn), torch.from_numpy(case.lengths)
    x = pack_padded_sequence(torch.from_numpy(case.grid), lengths, batch_first=True, enforce_sorted=False)
    is_real = torch.from_numpy(case.is_real)
    return _torch_peer(
        case, layer, x, lambda o: o.data, lambda o: pad_packed_sequence(o, batch_first=True)[0][is_real]
    )


def torchrua(case: Case) -> Peer:
    """The layout is torchrua's, the layer torch's: torchrua has none of its own."""
    import torch
    from torchrua import C

    rows = torch.from_numpy(case.grid[case.is_real])
    catted = C(rows, torch.from_numpy(case.lengths))
    layer = _torch_layer(case, torch.nn)

    class Whole(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return (layer(x.pack())[0].cat(),)

        def zero_grad(self, set_to_none: bool = True) -> None:
            layer.zero_grad(set_to_none)

    return _torch_peer(case, Whole(), catted, lambda o: o.data, lambda o: o.data)


def padless(case: Case, dtype: str = "float32") -> Peer:
    import torch

    import padless as library

    layer = _torch_layer(case, library.nn, dtype)
    rows = torch.from_numpy(case.grid[case.is_real]).to(getattr(torch, dtype))
    batch = library.Packed(rows, torch.from_numpy(case.lengths))
    return _torch_peer(case, layer, batch, lambda o: o.data, lambda o: o.data)


# ---- engines that serve


def _onnx_case(case: Case) -> tuple[Any, np.ndarray, Callable[[Any], Any]]:
    import torch

    from padless.bench.served import onnx_model

    layer = _torch_layer(case, torch.nn)
    model = onnx_model("LSTM", layer, case.steps, case.batch).SerializeToString()
    grid = np.ascontiguousarray(case.grid.transpose(1, 0, 2))
    return model, grid, lambda y: np.asarray(y)[:, 0].transpose(1, 0, 2)[case.is_real]


def onnxruntime(case: Case) -> Peer:
    import onnxruntime as ort

    model, grid, outputs = _onnx_case(case)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed = {"X": grid, "sequence_lens": case.lengths.astype(np.int32)}
    return Peer(lambda: session.run(["Y"], feed)[0], outputs)


def openvino(case: Case) -> Peer:
    import openvino as ov

    model, grid, outputs = _onnx_case(case)
    settings = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    core = ov.Core()
    compiled = core.compile_model(core.read_model(model), "CPU", settings)
    request = compiled.create_infer_request()
    feed = {"X": grid, "sequence_lens": case.lengths.astype(np.int32)}
    return Peer(lambda: request.infer(feed)[compiled.output("Y")], outputs)


# ---- other frameworks


def keras(case: Case) -> Peer:
    """Keras on TensorFlow: a masked LSTM, its step compiled by `tf.function`."""
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3", CUDA_VISIBLE_DEVICES="-1", KERAS_BACKEND="tensorflow")
    import keras as library
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    layer = library.layers.LSTM(case.hidden, return_sequences=True)
    grid, mask = tf.constant(case.grid), tf.constant(case.is_real)
    layer(grid, mask=mask)  # makes its weights: gates i f c o, as torch's i f g o
    layer.set_weights([case.w_ih.T, case.w_hh.T, case.b_ih + case.b_hh])
    real = tf.cast(mask, tf.float32)[..., None]

    @tf.function
    def infer() -> Any:
        return layer(grid, mask=mask), []

    @tf.function
    def train() -> Any:
        with tf.GradientTape() as tape:
            output = layer(grid, mask=mask)
            loss = tf.reduce_sum(output * real)
        return output, tape.gradient(loss, layer.trainable_variables)  # TensorFlow drops what is not returned

    step = train if case.trains else infer
    return Peer(lambda: step()[0].numpy(), lambda y: y[case.is_real])


def flax(case: Case) -> Peer:
    """Flax's `nn.RNN(OptimizedLSTMCell)` with `seq_lengths`, compiled by XLA."""
    os.environ.update(
        JAX_PLATFORMS="cpu", XLA_FLAGS="--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    )
    import jax
    import jax.numpy as jnp
    from flax import linen

    gates = "ifgo"
    kernels = {
        f"i{g}": {"kernel": jnp.array(w.T)} for g, w in zip(gates, np.split(case.w_ih, 4), strict=True)
    }
    recurrent = zip(gates, np.split(case.w_hh, 4), np.split(case.b_ih + case.b_hh, 4), strict=True)
    kernels |= {f"h{g}": {"kernel": jnp.array(w.T), "bias": jnp.array(b)} for g, w, b in recurrent}
    model = linen.RNN(linen.OptimizedLSTMCell(case.hidden))
    grid, lengths, real = jnp.array(case.grid), jnp.array(case.lengths), jnp.array(case.is_real[..., None])
    parameters = {"params": {"cell": kernels}}

    def loss(parameters: Any) -> Any:
        output = model.apply(parameters, grid, seq_lengths=lengths)
        return jnp.where(real, output, 0).sum(), output

    infer = jax.jit(lambda parameters: loss(parameters)[1])
    train = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def call() -> Any:
        if not case.trains:
            return infer(parameters).block_until_ready()
        (_, output), gradients = train(parameters)
        jax.block_until_ready(gradients)
        return output

    return Peer(call, lambda y: np.asarray(y)[case.is_real])


PEERS: dict[str, Callable[[Case], Peer]] = {
    "padless": padless,
    "padless bf16": lambda case: padless(case, "bfloat16"),
    "torch padded": torch_padded,
    "torch padded bf16": lambda case: torch_padded(case, "bfloat16"),
    "torch packed": torch_packed,
    "torchrua": torchrua,
    "ONNX Runtime": onnxruntime,
    "OpenVINO": openvino,
    "Keras": keras,
    "Flax": flax,
}


def main(name: str, path: str) -> None:
    answers = os.fdopen(os.dup(1), "w")  # what libraries print goes to standard error
    os.dup2(2, 1)
    peer = PEERS[name](Case(path))
    end = time.perf_counter() + WARM_SECONDS
    for _ in range(2):
        peer.call()
    while time.perf_counter() < end:
        peer.call()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        task, *arguments = line.split()
        if task == "check":
            np.save(arguments[0], peer.outputs(peer.call()))
            print("written", file=answers, flush=True)
        else:
            start = time.process_time()
            peer.call()
            print(time.process_time() - start, file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
