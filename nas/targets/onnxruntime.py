"""ONNX Runtime: ONNX with norms folded, and the same in int8 (QDQ)."""

from dataclasses import replace
from functools import partial

from nas.targets.onnx import file_bytes
from nas.targets.target import Target
from nas.targets.torch import peak_fp32, peak_int8

_MODULES = ("onnx", "onnxscript", "onnxruntime")

ONNXRUNTIME = Target(
    name="onnxruntime",
    ending=".onnx",
    form="onnx",
    modules=_MODULES,
    extra="export",
    engine="onnxruntime",
    size=partial(file_bytes, int8=False),
    memory=peak_fp32,
)

ONNXRUNTIME_INT8 = Target(
    name="onnxruntime-int8",
    ending="-int8.onnx",
    form="onnx",
    modules=_MODULES,
    extra="export",
    engine="onnxruntime-int8",
    size=partial(file_bytes, int8=True),
    memory=peak_int8,
    int8=True,
)

ONNXRUNTIME_INT8_PER_TENSOR = replace(
    ONNXRUNTIME_INT8,
    name="onnxruntime-int8:per-tensor",
    engine="onnxruntime-int8:per-tensor",
    size=partial(file_bytes, int8=True, per_tensor=True),
    per_tensor=True,
)
