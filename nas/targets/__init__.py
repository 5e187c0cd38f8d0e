"""Targets: what a network costs where it ships.

``torch`` ships the state dict as safetensors, which the papers' file sizes are of; ``onnxruntime`` ONNX with norms
folded, in int8 as QDQ; ``litert`` a .tflite for XNNPACK, in int8 with int8 input and output; ``tflite-micro`` that one
as an array in flash, run in an arena, and no latency is known of a board.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from nas.architecture.document import Architecture
from nas.costs.analytic import cost
from nas.errors import UserError
from nas.targets import onnx, tflite
from nas.targets.target import Target, restricted

__all__ = ["TARGETS", "TORCH", "Target", "on_target", "restricted", "target"]


def _state_dict(architecture: Architecture, num_classes: int) -> int:
    return cost(architecture, num_classes).size_bytes


def _peak_fp32(architecture: Architecture, num_classes: int) -> int:
    """Return the peak of activations in fp32, as :mod:`nas.blocks.complexity` defines it."""
    return cost(architecture, num_classes).peak_activation_bytes


def _peak_int8(architecture: Architecture, num_classes: int) -> int:
    """Return the same peak, one byte per value."""
    return _peak_fp32(architecture, num_classes) // 4


def _arena(architecture: Architecture, num_classes: int) -> int:
    return tflite.arena_head(architecture, num_classes) + tflite.arena_tail(architecture, num_classes)


def _int8(fp32: Target, name: str, ending: str, size: Callable[..., int], **fields: Any) -> Target:
    """Return a target's twin of int8, with a scale for each output channel's weights."""
    known = {"engine": name, "memory": _peak_int8, **fields}
    return replace(fp32, name=name, ending=ending, size=partial(size, int8=True), int8=True, **known)


def _per_tensor(target: Target) -> Target:
    """Return the same target with one scale for all of a layer's weights."""
    name = f"{target.name}:per-tensor"
    size: Callable[..., int] = target.size  # those of int8 take `per_tensor` too
    of_scales = partial(size, per_tensor=True)
    return replace(target, name=name, engine=target.engine and name, size=of_scales, per_tensor=True)


TORCH = Target(
    name="torch",
    ending=".safetensors",
    form=None,
    engine="eager",
    size=_state_dict,
    memory=_peak_fp32,
    aliases={"memory": "peak_memory"},
)
_ONNXRUNTIME = Target(
    name="onnxruntime",
    ending=".onnx",
    form="onnx",
    modules=("onnx", "onnxscript", "onnxruntime"),
    extra="export",
    engine="onnxruntime",
    size=partial(onnx.file_bytes, int8=False),
    memory=_peak_fp32,
)
_LITERT = Target(
    name="litert",
    ending=".tflite",
    form="litert",
    modules=("litert_torch", "ai_edge_quantizer", "ai_edge_litert", "tflite_micro"),
    extra="litert",
    engine="litert",
    size=partial(tflite.file_bytes, int8=False),
    memory=_peak_fp32,
    knows_experts=False,
)
_ARRAY = {"form": "tflite-micro", "engine": None, "memory": _arena, "aliases": {"flash": "size"}}
_INT8 = (
    _int8(_ONNXRUNTIME, "onnxruntime-int8", "-int8.onnx", onnx.file_bytes),
    _int8(_LITERT, "litert-int8", "-int8.tflite", tflite.file_bytes),
    _int8(_LITERT, "tflite-micro", "-tflite-micro", partial(tflite.file_bytes, card=False), **_ARRAY),
)
TARGETS: Mapping[str, Target] = {
    item.name: item for item in (TORCH, _ONNXRUNTIME, _INT8[0], _LITERT, *_INT8[1:], *map(_per_tensor, _INT8))
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
