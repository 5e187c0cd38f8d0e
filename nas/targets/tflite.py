"""Bytes of a .tflite as nas writes it, and of the arena in which TensorFlow Lite Micro runs it, from the document.

The nodes follow from the document (:mod:`nas.targets.nodes`). What weights and scales take in the file is known; what a
node, a tensor and the rest of the flatbuffer's tables take was fitted (`benchmarks/targets.py` measures how well).
"""

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

from nas.architecture.document import Architecture
from nas.blocks import Stage
from nas.blocks.complexity import CountedPart
from nas.costs.analytic import parts
from nas.targets.nodes import WEIGHTED, Node, Shape, nodes_of, normalisation

ALIGNMENT = 16
"""Of weights in the file and of tensors in the arena, in bytes."""


class Tables(NamedTuple):
    """Bytes in a file's tables, fitted to files of every block kind and shipped space."""

    node: float
    tensor: float
    weighted: float
    """Of a node with weights, besides."""
    kind: float
    """Of each kind of node."""
    fixed: float


FP32_TABLES = Tables(node=-12.1, tensor=66.0, weighted=-15.3, kind=22.9, fixed=452.9)
INT8_TABLES = Tables(node=50.1, tensor=36.2, weighted=92.1, kind=29.4, fixed=606.1)
PER_TENSOR_TABLES = INT8_TABLES._replace(fixed=554.1)
TAIL_TABLES = Tables(node=137.1, tensor=-1.6, weighted=121.9, kind=0, fixed=832.9)
"""Of the arena's tail: a 64-bit interpreter's, as measured; a microcontroller's is smaller."""

CARD_BYTES = 330
"""Of the card beside the network's document and the classes."""
CLASS_BYTES = 13
"""Of a class's name in the card, about."""


class Buffer(NamedTuple):
    """An activation in the arena: bytes, and the first and the last node that need it, counted from the part's."""

    size: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, eq=False)
class Summary:
    """A part's share of the file and of the arena."""

    nodes: int
    weighted: int
    channels: int
    """Output channels of all nodes with weights: each has its scale."""
    weights_int8: int
    weights_fp32: int
    biases: int
    shapes: frozenset[Shape]
    """Of all tensors; equal ones are written once."""
    lengths: frozenset[int]
    """Of the vectors of zero points, which are written once as well."""
    kinds: frozenset[str]
    constants: frozenset[tuple[str, Shape]]
    buffers: tuple[Buffer, ...]
    """What the part writes, in the order of the nodes; the last one is its output."""
    scratch: tuple[Buffer, ...]
    input_last: int
    """The last node that reads the part's input."""


def file_bytes(
    architecture: Architecture, num_classes: int, *, int8: bool, card: bool = True, per_tensor: bool = False
) -> int:
    """Predict a file's bytes.

    Args:
        architecture: the document.
        num_classes: outputs of the last layer.
        int8: weights and activations are int8.
        card: with the metadata entry that says what the model is; the array of a microcontroller has none.
        per_tensor: in int8, one scale for all of a layer's weights, in place of one per output channel.
    """
    all_parts = _summaries(architecture, num_classes)
    shapes = frozenset[Shape]().union(*(part.shapes for part in all_parts))
    total = sum(4 + 4 * len(shape) for shape in shapes) + sum(part.biases for part in all_parts)
    if int8:
        lengths = frozenset[int]().union(*(part.lengths for part in all_parts if not per_tensor))
        scales = sum(part.weighted if per_tensor else part.channels for part in all_parts)
        total += sum(part.weights_int8 for part in all_parts) + 8 * scales
        total += sum(4 + 8 * length for length in lengths)
    else:
        total += sum(part.weights_fp32 for part in all_parts)
    said = _card_bytes(architecture, num_classes) if card else 0
    tables = (PER_TENSOR_TABLES if per_tensor else INT8_TABLES) if int8 else FP32_TABLES
    return total + said + _tables(all_parts, tables)


def arena_tail(architecture: Architecture, num_classes: int) -> int:
    """Predict what an interpreter keeps from the start on: tensors, nodes, and two numbers per output channel."""
    all_parts = _summaries(architecture, num_classes)
    return 8 * sum(part.channels for part in all_parts) + _tables(all_parts, TAIL_TABLES)


def arena_head(architecture: Architecture, num_classes: int) -> int:
    """Plan the int8 activations as TensorFlow Lite Micro does: its greedy planner, exactly."""
    image = architecture.input
    buffers = [_aligned(image.channels * image.resolution**2)]
    spans = [[0, 0]]
    scratch: list[Buffer] = []
    step = 0
    for part in _summaries(architecture, num_classes):
        spans[-1][1] = max(spans[-1][1], step + part.input_last)
        for buffer in part.buffers:
            buffers.append(buffer.size)
            spans.append([step + buffer.first, step + buffer.last])
        scratch += [Buffer(item.size, step + item.first, step + item.last) for item in part.scratch]
        step += part.nodes
    planned = [Buffer(size, first, last) for size, (first, last) in zip(buffers, spans, strict=True)]
    return plan([*planned, *scratch], step)


def plan(buffers: Sequence[Buffer], steps: int) -> int:
    """Place buffers, the largest first (of equals the later one), each at the lowest offset that is free all its life.

    Returns:
        The end of the highest.
    """
    placed: list[list[tuple[int, int]]] = [[] for _ in range(steps)]  # at each step: offset and end
    highest = 0
    for number in sorted(range(len(buffers)), key=lambda number: (-buffers[number].size, -number)):
        size, first, last = buffers[number]
        offset = 0
        for start, end in sorted({item for step in placed[first : last + 1] for item in step}):
            if start - offset >= size:
                break
            offset = max(offset, end)
        for step in range(first, last + 1):
            placed[step].append((offset, offset + size))
        highest = max(highest, offset + size)
    return highest


def _summaries(architecture: Architecture, num_classes: int) -> list[Summary]:
    image = architecture.input
    return [_normalised(image.channels, image.resolution), *map(_summary, parts(architecture, num_classes))]


@functools.lru_cache(maxsize=100_000)
def _summary(part: CountedPart) -> Summary:
    return _summed(nodes_of(part))


@functools.lru_cache(maxsize=1_000)
def _normalised(channels: int, resolution: int) -> Summary:
    return _summed(normalisation(channels, resolution))


def _summed(nodes: Sequence[Node]) -> Summary:
    weighted = [node for node in nodes if node.kind in WEIGHTED]
    shapes = {node.shape for node in nodes} | {node.weights for node in weighted}
    last = {number: step for step, node in enumerate(nodes) for number in node.reads}
    return Summary(
        nodes=len(nodes),
        weighted=len(weighted),
        channels=sum(node.channels for node in weighted),
        weights_int8=sum(_aligned(prod(node.weights)) for node in weighted),
        weights_fp32=sum(_aligned(4 * prod(node.weights)) for node in weighted),
        biases=sum(_aligned(4 * node.channels) for node in weighted),
        shapes=frozenset(shapes | {(node.channels,) for node in weighted}),
        lengths=frozenset(node.channels for node in weighted),
        kinds=frozenset(node.kind for node in nodes),
        constants=frozenset((node.kind, node.constant) for node in nodes if node.constant),
        buffers=tuple(
            Buffer(_aligned(prod(node.shape)), step, last.get(node.writes, step)) for step, node in enumerate(nodes)
        ),
        scratch=tuple(
            Buffer(_aligned(4 * prod(node.shape)), step, step)  # sums in int32
            for step, node in enumerate(nodes)
            if node.kind == "MEAN"
        ),
        input_last=last.get(0, 0),
    )


def _tables(all_parts: Sequence[Summary], tables: Tables) -> int:
    nodes = sum(part.nodes for part in all_parts)
    weighted = sum(part.weighted for part in all_parts)
    constants = frozenset[tuple[str, Shape]]().union(*(part.constants for part in all_parts))
    kinds = frozenset[str]().union(*(part.kinds for part in all_parts))
    tensors = nodes + 1 + 2 * weighted + len(constants)
    return round(
        tables.node * nodes
        + tables.tensor * tensors
        + tables.weighted * weighted
        + tables.kind * len(kinds)
        + tables.fixed
    )


def document_bytes(architecture: Architecture) -> int:
    """Return the length of the document as JSON within JSON, as cards have it, about: what stages have in common."""
    return 150 + sum(map(_stage_bytes, architecture.stages))


@functools.lru_cache(maxsize=10_000)
def _stage_bytes(stage: Stage) -> int:
    return len(json.dumps(json.dumps(stage.model_dump(mode="json", exclude_unset=True))))


def _card_bytes(architecture: Architecture, num_classes: int) -> int:
    return CARD_BYTES + document_bytes(architecture) + CLASS_BYTES * num_classes


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
