"""Targets: what a network costs where it ships."""

from collections.abc import Mapping

from nas.errors import UserError
from nas.targets.litert import LITERT, LITERT_INT8
from nas.targets.onnxruntime import ONNXRUNTIME, ONNXRUNTIME_INT8
from nas.targets.target import Target
from nas.targets.tflite_micro import TFLITE_MICRO
from nas.targets.torch import TORCH

__all__ = ["TARGETS", "Target", "target"]

TARGETS: Mapping[str, Target] = {
    item.name: item for item in (TORCH, ONNXRUNTIME, ONNXRUNTIME_INT8, LITERT, LITERT_INT8, TFLITE_MICRO)
}


def target(name: str) -> Target:
    """Look a target up.

    Raises:
        UserError: there is none of this name.
    """
    if name not in TARGETS:
        raise UserError(f"unknown target {name!r}; allowed: {', '.join(TARGETS)}")
    return TARGETS[name]
