"""Static quantisation to int8 after training, by ONNX Runtime.

Weights get one scale per output channel (the channels of a depthwise convolution differ by orders of magnitude),
activations one per tensor, from the ranges that they take on calibration images. The model stays an ordinary ONNX file
(QDQ: quantise and dequantise nodes around the layers), which any runtime reads and int8 engines run in int8.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.export.check import ExportError, quietly, require, write
from nas.export.onnx import INPUT

_BATCH = 64

_OPERATIONS = [
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Mul",
    "Concat",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "ReduceMean",
    "Relu",
    "Clip",
]
"""Operators that work on whole images. The rest is the routing of conditional convolutions: a handful of numbers per
image, for which the nodes around it would weigh more than what they save.
"""


@dataclass(frozen=True)
class Quantised:
    """A model before and after: its file, and sizes in bytes."""

    path: Path
    size: int
    size_before: int
    calibration_images: int


def quantise(model: Path, path: Path, images: Tensor) -> Quantised:
    """Quantise an ONNX model that `to_onnx` wrote.

    Args:
        model: the float model.
        path: the int8 model's file; replaced where it exists.
        images: to calibrate with: uint8 (N, C, R, R), as the network reads them. Training images: whatever is judged
            later has played no part.

    Raises:
        UserError: onnx, onnxscript or onnxruntime is missing, or a file cannot be read or written.
        ExportError: ONNX Runtime cannot quantise the model.
    """
    require("--int8", "onnx", "onnxruntime")
    content = _quantise(model, images)
    write(path, content)
    return Quantised(path, len(content), model.stat().st_size, len(images))


def _quantise(model: Path, images: Tensor) -> bytes:
    """Return the int8 model's bytes, with the metadata of the float one."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._parts = iter(torch.split(images, _BATCH))

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            part = next(self._parts, None)
            return None if part is None else {INPUT: (part.float() / 255).numpy()}

    with tempfile.TemporaryDirectory() as folder, quietly():
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        try:
            quant_pre_process(model, prepared, skip_optimization=True, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                quantised,
                Reader(),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=_OPERATIONS,
                per_channel=True,
                activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8,
                nodes_to_exclude=_normalisation(onnx.load(prepared)),
            )
        except Exception as error:  # the quantiser raises whatever its steps raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ExportError(f"ONNX Runtime cannot quantise this model: {reason}") from error
        result = onnx.load(quantised)
    metadata = {item.key: item.value for item in onnx.load(model, load_external_data=False).metadata_props}
    metadata["quantisation"] = f"int8, static, per channel; ranges from {len(images)} training images"
    onnx.helper.set_model_props(result, metadata)
    content: bytes = result.SerializeToString()
    return content


def _normalisation(model: Any) -> list[str]:
    """List the nodes from the input up to the first convolution: a few thousand operations, exact in float."""
    names: list[str] = []
    tensors = {INPUT}
    for node in model.graph.node:
        if tensors & set(node.input) and node.op_type in ("Sub", "Div", "Mul", "Add"):
            names.append(node.name)
            tensors.update(node.output)
    return names
