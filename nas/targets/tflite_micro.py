"""TensorFlow Lite Micro: the int8 .tflite as an array in flash, run in an arena; no latency is known of a board."""

from dataclasses import replace
from functools import partial

from nas.architecture.document import Architecture
from nas.targets.litert import MODULES
from nas.targets.target import Target
from nas.targets.tflite import arena_head, arena_tail, file_bytes


def _arena(architecture: Architecture, num_classes: int) -> int:
    return arena_head(architecture, num_classes) + arena_tail(architecture, num_classes)


TFLITE_MICRO = Target(
    name="tflite-micro",
    ending="-tflite-micro",
    form="tflite-micro",
    modules=MODULES,
    extra="litert",
    engine=None,
    size=partial(file_bytes, int8=True, card=False),
    memory=_arena,
    int8=True,
    knows_experts=False,
    aliases={"flash": "size"},
)

TFLITE_MICRO_PER_TENSOR = replace(
    TFLITE_MICRO,
    name="tflite-micro:per-tensor",
    size=partial(file_bytes, int8=True, card=False, per_tensor=True),
    per_tensor=True,
)
