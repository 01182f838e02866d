"""`export`: exports a model with padless layers to ONNX, by `torch.onnx.export`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["export", "translation_table"]


def export(
    model: torch.nn.Module,
    args: tuple[Any, ...],
    path: Any = None,
    *,
    custom_translation_table: dict[Callable[..., Any], Any] | None = None,
    dynamo: bool = True,
    **options: Any,
) -> Any:
    """`torch.onnx.export(model, args, path, dynamo=True, ...)` with support for padless's layers.

    RNN, LSTM and GRU become the ONNX nodes of the same names with `sequence_lens`, so the file supports other B and T
    (`dynamic_shapes`), unsorted batches and sequences of length 0.

    Args:
        model: any module; it is exported in its current mode, so call `.eval()` first.
        args: example arguments.
        path: the file to write; None only returns the program.
        custom_translation_table: of `torch.onnx.export`; its entries override padless's own.
        dynamo: only True is supported.
        options: others of `torch.onnx.export`.

    Returns:
        `torch.onnx.ONNXProgram`.

    Raises:
        ImportError: onnx or onnxscript is missing (extra `onnx`).
        NotImplementedError: an LSTM with `proj_size`, which ONNX does not have.
        ValueError: `dynamo` is False.
    """
    if not dynamo:
        raise ValueError("export: dynamo must be True: torch's older exporter does not know padless's layers")
    table = {**translation_table(), **(custom_translation_table or {})}
    with torch.no_grad():
        return torch.onnx.export(model, args, path, dynamo=True, custom_translation_table=table, **options)


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The `custom_translation_table` of padless's operators for `torch.onnx.export(..., dynamo=True)`.

    Raises:
        ImportError: onnxscript is missing (extra `onnx`).
    """
    try:
        from . import translations
    except ImportError as error:
        raise ImportError("ONNX export needs onnx and onnxscript: pip install onnx onnxscript") from error
    return translations.table()
