"""LiteRT with XNNPACK: a .tflite of fp32, and one of int8 with int8 input and output."""

from dataclasses import replace
from functools import partial

from nas.targets.target import Target
from nas.targets.tflite import file_bytes
from nas.targets.torch import peak_fp32, peak_int8

MODULES = ("litert_torch", "ai_edge_quantizer", "ai_edge_litert", "tflite_micro")

LITERT = Target(
    name="litert",
    ending=".tflite",
    form="litert",
    modules=MODULES,
    extra="litert",
    engine="litert",
    size=partial(file_bytes, int8=False),
    memory=peak_fp32,
    knows_experts=False,
)

LITERT_INT8 = Target(
    name="litert-int8",
    ending="-int8.tflite",
    form="litert",
    modules=MODULES,
    extra="litert",
    engine="litert-int8",
    size=partial(file_bytes, int8=True),
    memory=peak_int8,
    int8=True,
    knows_experts=False,
)

LITERT_INT8_PER_TENSOR = replace(
    LITERT_INT8,
    name="litert-int8:per-tensor",
    engine="litert-int8:per-tensor",
    size=partial(file_bytes, int8=True, per_tensor=True),
    per_tensor=True,
)
