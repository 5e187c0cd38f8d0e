"""An ONNX model of fp32 -> one of int8, by ONNX Runtime, static: the step that exports and latencies share.

Weights get one scale per output channel (the channels of a depthwise convolution differ by orders of magnitude) or, for
accelerators that are slow otherwise, one per tensor; activations one per tensor, from the ranges that they take on
calibration images. The model stays an ordinary ONNX file (QDQ: quantise and dequantise nodes around the layers), which
any runtime reads and int8 engines run in int8.

onnx and onnxruntime must be installed; what they raise is passed on.
"""

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.extras import quietly

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


def quantise_onnx(
    model: bytes, batches: Iterable[NDArray[np.float32]], metadata: dict[str, str], *, per_tensor: bool = False
) -> bytes:
    """Quantise a model of one input; a normalisation in front stays in float.

    Args:
        model: the float model; its metadata are kept.
        batches: inputs to calibrate with.
        metadata: entries to add.
        per_tensor: one scale for all of a layer's weights.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    before = onnx.load_from_string(model)
    name = before.graph.input[0].name

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches: Iterator[NDArray[np.float32]] = iter(batches)

        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            batch = next(self._batches, None)
            return None if batch is None else {name: batch}

    with tempfile.TemporaryDirectory() as folder, quietly():
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        quant_pre_process(before, prepared, skip_optimization=True, skip_symbolic_shape=True)
        float_model = onnx.load(prepared)
        quantize_static(
            prepared,
            quantised,
            Reader(),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=_OPERATIONS,
            per_channel=not per_tensor,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=_normalisation(float_model, name),
            extra_options={"TensorQuantOverrides": {weight: [{}] for weight in _experts(float_model)}},
        )
        result = onnx.load(quantised)
    kept = {item.key: item.value for item in before.metadata_props}
    onnx.helper.set_model_props(result, {**kept, **metadata})
    content: bytes = result.SerializeToString()
    return content


def _normalisation(model: Any, name: str) -> list[str]:
    """List the nodes from the input up to the first convolution: a few thousand operations, exact in float."""
    names: list[str] = []
    tensors = {name}
    for node in model.graph.node:
        if tensors & set(node.input) and node.op_type in ("Sub", "Div", "Mul", "Add"):
            names.append(node.name)
            tensors.update(node.output)
    return names


def _experts(model: Any) -> list[str]:
    """List the matrices of experts, of which conditional 1x1 convolutions mix kernels: one scale each.

    Their columns are weights of the kernel, hundreds of thousands, each of which would get a scale of its own, more
    bytes than the experts' values take, in a loop of Python; the mixed kernel has one scale whatever they have.
    """
    constants = {tensor.name for tensor in model.graph.initializer}
    return sorted(constants & {name for node in model.graph.node if node.op_type == "MatMul" for name in node.input})
