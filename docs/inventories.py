"""Sphinx inventories of the torch and NumPy names that padless's documentation mentions."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

TORCH = "https://docs.pytorch.org/docs/stable/"
NUMPY = "https://numpy.org/doc/stable/"

_TORCH_CLASSES = [
    "torch.nn.RNN", "torch.nn.LSTM", "torch.nn.GRU", "torch.nn.Conv1d", "torch.nn.Linear", "torch.nn.Module",
    "torch.nn.utils.rnn.PackedSequence",
]  # fmt: skip
_TORCH_FUNCTIONS = [
    "torch.compile", "torch.get_float32_matmul_precision", "torch.set_float32_matmul_precision", "torch.vmap",
    "torch.nn.utils.rnn.pack_padded_sequence", "torch.nn.utils.rnn.pack_sequence",
    "torch.nn.utils.rnn.pad_packed_sequence", "torch.nn.utils.rnn.pad_sequence",
    "torch.nn.utils.rnn.unpack_sequence", "torch.nn.utils.rnn.unpad_sequence",
]  # fmt: skip
_PAGES = {  # documented on a page with others
    "torch.Tensor": ("class", "tensors.html"),
    "torch.utils.data.DataLoader": ("class", "data.html"),
    "torch.utils.data.IterableDataset": ("class", "data.html"),
    "torch.utils.checkpoint.checkpoint": ("function", "checkpoint.html"),
    "torch.nested.nested_tensor_from_jagged": ("function", "nested.html"),
}


def write_inventories(folder: Path) -> Iterator[tuple[str, str, Path]]:
    """Writes one inventory a project; yields its name, the address of its documentation and the inventory's path."""
    torch = {name: ("class", f"generated/{name}.html") for name in _TORCH_CLASSES}
    torch |= {name: ("function", f"generated/{name}.html") for name in _TORCH_FUNCTIONS}
    numpy = {"numpy.ndarray": ("class", "reference/generated/numpy.ndarray.html")}
    folder.mkdir(parents=True, exist_ok=True)
    for project, address, names in (("torch", TORCH, torch | _PAGES), ("numpy", NUMPY, numpy)):
        lines = (f"{name} py:{kind} 1 {page}#$ -\n" for name, (kind, page) in sorted(names.items()))
        header = f"# Sphinx inventory version 2\n# Project: {project}\n# Version: \n# The rest is zlib.\n"
        path = folder / f"{project}.inv"
        path.write_bytes(header.encode() + zlib.compress("".join(lines).encode()))
        yield project, address, path
