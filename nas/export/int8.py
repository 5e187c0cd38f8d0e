"""An exported ONNX model -> one of int8 beside it; see :mod:`nas.network.onnx_int8`."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nas.errors import first_line
from nas.export.check import ExportError, write
from nas.extras import require
from nas.network.onnx_int8 import quantise_onnx

_BATCH = 64


@dataclass(frozen=True)
class Quantised:
    """A model before and after: its file, and sizes in bytes."""

    path: Path
    size: int
    size_before: int
    calibration_images: int


def quantise(model: Path, path: Path, images: Tensor, *, per_tensor: bool = False) -> Quantised:
    """Quantise an ONNX model that `to_onnx` wrote.

    Args:
        model: the float model.
        path: the int8 model's file; replaced where it exists.
        images: to calibrate with: uint8 (N, C, R, R), as the network reads them. Training images: whatever is judged
            later has played no part.
        per_tensor: one scale for all of a layer's weights, in place of one per output channel.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is missing, or a file cannot be read or written.
        ExportError: ONNX Runtime cannot quantise the model.
    """
    before = model.read_bytes()
    content = onnx_int8_bytes(before, images, per_tensor=per_tensor)
    write(path, content)
    return Quantised(path, len(content), len(before), len(images))


def onnx_int8_bytes(model: bytes, images: Tensor, *, per_tensor: bool = False) -> bytes:
    """Quantise an ONNX file of fp32; see :func:`quantise`."""
    require("int8", "onnx", "onnxruntime")
    batches = ((part.float() / 255).numpy() for part in torch.split(images, _BATCH))
    scales = granularity(per_tensor)
    origin = {"quantisation": f"int8, static, {scales}; ranges from {len(images)} training images"}
    try:
        return quantise_onnx(model, batches, origin, per_tensor=per_tensor)
    except Exception as error:  # the quantiser raises whatever its steps raise
        raise ExportError(f"ONNX Runtime cannot quantise this model: {first_line(error)}") from error


def granularity(per_tensor: bool) -> str:
    """Say of what each scale of weights is."""
    return "per tensor" if per_tensor else "per channel"
