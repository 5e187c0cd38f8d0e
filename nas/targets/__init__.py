"""Targets: what a network costs where it ships."""

from collections.abc import Mapping
from typing import Any

from nas.architecture.document import Architecture
from nas.errors import UserError
from nas.targets.litert import LITERT, LITERT_INT8, LITERT_INT8_PER_TENSOR
from nas.targets.onnxruntime import ONNXRUNTIME, ONNXRUNTIME_INT8, ONNXRUNTIME_INT8_PER_TENSOR
from nas.targets.target import Target
from nas.targets.tflite_micro import TFLITE_MICRO, TFLITE_MICRO_PER_TENSOR
from nas.targets.torch import TORCH

__all__ = ["TARGETS", "Target", "on_target", "target"]

PER_TENSOR = (ONNXRUNTIME_INT8_PER_TENSOR, LITERT_INT8_PER_TENSOR, TFLITE_MICRO_PER_TENSOR)
TARGETS: Mapping[str, Target] = {
    item.name: item for item in (TORCH, ONNXRUNTIME, ONNXRUNTIME_INT8, LITERT, LITERT_INT8, TFLITE_MICRO, *PER_TENSOR)
}


def target(name: str) -> Target:
    """Look a target up.

    Raises:
        UserError: there is none of this name.
    """
    if name not in TARGETS:
        raise UserError(f"unknown target {name!r}; allowed: {', '.join(TARGETS)}")
    return TARGETS[name]


def on_target(target: Target, architecture: Architecture, num_classes: int) -> dict[str, Any]:
    """Return what a network costs on a target, as plain values.

    Keys: ``name``, ``file`` (the ending of its name), ``file_bytes``, ``memory_bytes``, ``latency_engine``, ``int8``,
    ``objection``; bytes are None where there is an objection.
    """
    objection = target.objection(architecture)
    runs = objection is None
    return {
        "name": target.name,
        "file": target.ending,
        "file_bytes": target.size(architecture, num_classes) if runs else None,
        "memory_bytes": target.memory(architecture, num_classes) if runs else None,
        "latency_engine": target.engine,
        "int8": target.int8,
        "objection": objection,
    }
