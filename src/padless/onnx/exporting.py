"""`export`: a model with padless layers as an ONNX file, by `torch.onnx.export`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

__all__ = ["export", "translation_table"]


def export(model: torch.nn.Module, args: tuple[Any, ...], path: Any = None, **options: Any) -> Any:
    """`torch.onnx.export(model, args, path, dynamo=True, ...)` that knows padless's layers.

    RNN, LSTM and GRU become ONNX's nodes of these names with `sequence_lens`, so the file runs at other B and T
    (`dynamic_shapes`), on unsorted batches and on sequences of length 0.

    Args:
        model: any module; it is exported in the mode that it is in, so call `.eval()` first.
        args: an example of its arguments.
        path: the file; None returns the program alone.
        options: of `torch.onnx.export`; entries of `custom_translation_table` come before padless's own.

    Returns:
        `torch.onnx.ONNXProgram`.

    Raises:
        ImportError: onnx or onnxscript is missing (extra `onnx`).
        NotImplementedError: an LSTM with `proj_size`, which ONNX does not have.
    """
    table = {**translation_table(), **options.pop("custom_translation_table", {})}
    with torch.no_grad():
        return torch.onnx.export(model, args, path, dynamo=True, custom_translation_table=table, **options)


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """What `torch.onnx.export(..., dynamo=True, custom_translation_table=...)` needs for padless's operators.

    Raises:
        ImportError: onnxscript is missing (extra `onnx`).
    """
    try:
        from . import translations
    except ImportError as error:
        raise ImportError("ONNX export needs onnx and onnxscript: pip install 'padless[onnx]'") from error
    return translations.table()
