"""Bytes of an ONNX file as nas writes it, fp32 or int8 (QDQ), from the document.

What weights, scales and zero points take is known; what an operator takes besides (its nodes with their names, the
nodes that quantise around it) was fitted (`benchmarks/targets.py` measures how well).
"""

import functools
from collections.abc import Mapping

from nas.architecture.document import Architecture
from nas.blocks.complexity import CountedPart, Operator
from nas.costs.analytic import folded, parts
from nas.targets.tflite import document_bytes

_FP32: Mapping[str, float] = {
    "convolution": 325,
    "unbiased": -80,
    "relu": 10,
    "relu6": 48,
    "hard_swish": 20,
    "silu": 63,
    "add": 111,
    "sum": 111,
    "concat": 146,
    "max pool": 238,
    "average pool": 238,
    "squeeze-excitation": 863,
    "shuffle": 292,
    "conditional conv": 1907,
    "conditional": 717,
    "expert": 203,
}
_INT8: Mapping[str, float] = {
    "convolution": 1672,
    "unbiased": -484,
    "relu": -212,  # the convolution's nodes that quantise are those of its ReLU
    "relu6": -136,
    "hard_swish": 192,
    "silu": 559,
    "add": 375,
    "sum": 375,
    "concat": 684,
    "max pool": 507,
    "average pool": 507,
    "squeeze-excitation": 4442,
    "shuffle": 734,
    "conditional conv": 9019,
    "conditional": 2561,
    "expert": 2110,
}
"""Bytes of an operator beside its weights, by kind."""

_FIXED = {False: 2300, True: 3040}
"""Bytes of every file, the card's sentences among them."""

VECTOR_BYTES = 35
"""Of a layer whose scales are vectors, besides: their dimensions, and the axis that they lie along."""
FOLDED_VALUES = 8192
"""The exporter makes constants of experts' kernels up to so many values; the quantiser leaves larger ones in fp32."""


def file_bytes(architecture: Architecture, num_classes: int, *, int8: bool, per_tensor: bool = False) -> int:
    """Predict a file's bytes.

    Args:
        architecture: the document.
        num_classes: outputs of the last layer.
        int8: quantised, statically.
        per_tensor: in int8, one scale for all of a layer's weights, in place of one per output channel.
    """
    operators = sum(_part_bytes(part, int8, per_tensor) for part in parts(architecture, num_classes))
    return round(_FIXED[int8] + document_bytes(architecture) + operators)


@functools.lru_cache(maxsize=100_000)
def _part_bytes(part: CountedPart, int8: bool, per_tensor: bool) -> float:
    kinds = _INT8 if int8 else _FP32
    total = 0.0
    for operator in folded(part):
        kind = operator.kind
        total += _weights_int8(operator, per_tensor) if int8 else _weights_fp32(operator)
        if kind.startswith("conditional"):
            matmul = _is_product(operator)
            total += kinds["conditional conv" if matmul else "conditional"]
            total += 0 if matmul else kinds["expert"] * operator.width
        elif operator.weights and kind != "squeeze-excitation":
            total += kinds["convolution"] + (0 if operator.biases else kinds["unbiased"])
        else:
            total += kinds.get(kind, 0)
    return total


def _is_product(operator: Operator) -> bool:
    """Return whether a conditional convolution becomes one product of matrices, see :class:`CondConv2d`."""
    return operator.kind == "conditional conv" and operator.kernel == 1


def _weights_fp32(operator: Operator) -> int:
    routing = (operator.reads[0].channels + 1) * operator.width if operator.kind.startswith("conditional") else 0
    experts = operator.width if routing else 1
    return 4 * (experts * operator.weights + routing + operator.biases)


def _weights_int8(operator: Operator, per_tensor: bool) -> int:
    """Return the bytes of weights (1), each of their scales and zero points (5), biases (4), and of theirs (8)."""
    layers = 2 if operator.kind == "squeeze-excitation" else int(operator.weights > 0)
    channels = operator.writes.channels + (operator.width if layers == 2 else 0)
    scales, vectors = (layers, -VECTOR_BYTES * layers) if per_tensor else (layers and channels, 0)
    if not operator.kind.startswith("conditional"):
        return operator.weights + (13 if operator.biases else 5) * scales + vectors + 4 * operator.biases
    routing = (operator.reads[0].channels + 1 + 16) * operator.width
    mixed = operator.width * operator.weights
    if not _is_product(operator):
        mixed = mixed + (5 * scales + vectors) * operator.width if mixed <= FOLDED_VALUES else 4 * mixed
    return mixed + routing + operator.biases
