"""A network as a chain of segments (stem, blocks, tail), and each segment as its layers.

They follow from the operators of the network as it is *folded* (:mod:`nas.costs.analytic`), which every block kind
records, those of tomorrow included, without building a module. Latency depends on nothing else, so segments with the
same layers are one segment.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

from nas.architecture.document import Architecture
from nas.blocks.complexity import ACTIVATIONS, FLOAT_BYTES, CountedPart, Operator, Tensor
from nas.costs.analytic import folded, parts


class Layer(NamedTuple):
    """One layer of a folded network, at the size where it stands."""

    kind: str
    """``conv``, ``pointwise``, ``depthwise``, ``grouped``, each also as ``cond_...``; ``se``, ``linear``; ``move``."""
    in_channels: int
    out_channels: int
    kernel: int
    stride: int
    resolution: int
    """Side of the input in pixels."""
    macs: int
    moved: int
    """Bytes of activations read and written."""
    weights: int
    """Bytes of parameters read."""


class Segment(NamedTuple):
    """A part of a network that is timed and predicted as one."""

    activation: str
    layers: tuple[Layer, ...]

    @property
    def key(self) -> str:
        """A readable name, one for one: activation and layers, as in ``relu: pointwise 16>96 k1 s1 @32``."""
        layers = (
            f"{layer.kind} {layer.in_channels}>{layer.out_channels} k{layer.kernel} s{layer.stride} @{layer.resolution}"
            for layer in self.layers
        )
        return f"{self.activation}: {', '.join(layers)}"


def segments(architecture: Architecture, num_classes: int) -> list[Segment]:
    """The network's segments in order: stem, every block, and the tail (head, pooling, classifier)."""
    return [part_segment(part, architecture.activation) for part in parts(architecture, num_classes)]


@functools.lru_cache(maxsize=100_000)
def part_segment(part: CountedPart, activation: str) -> Segment:
    """One part's layers; a search meets the same parts over and over."""
    operators = folded(part)
    written = {operator.writes.number: operator for operator in operators}
    summed = {tensor.number for operator in operators if operator.kind == "sum" for tensor in operator.reads}
    layers = []
    for operator in operators:
        out = operator.writes
        if operator.kind == "add":
            layers.append(_join(2 * out.channels, out))
        elif operator.kind == "sum" and out.number not in summed:
            layers.append(_join(_branches(operator, written) * out.channels, out))
        elif operator.kind == "concat" and _is_pyramid(operator, written):
            layers.append(_join(out.channels, out))
        elif operator.kind not in _FREE:
            layers.append(_layer(operator))
    return Segment(activation, tuple(layers))


_FREE = ("norm", "sum", "concat", *ACTIVATIONS)
"""Operators that are timed with those around them."""


def _layer(operator: Operator) -> Layer:
    """Return the layer of an operator: what is no product, such as pooling, moves data."""
    read, out = operator.reads[0], operator.writes
    base = operator.kind.removeprefix("conditional ")
    kernel, stride = operator.kernel, operator.stride
    if operator.is_convolution:
        name = "pointwise" if base == "conv" and kernel == 1 else base
        name = name if base == operator.kind else f"cond_{name}"
    else:
        name = {"squeeze-excitation": "se", "linear": "linear"}.get(base, "move")
    if name == "move":
        kernel, stride = 1, max(1, read.size // out.size)
    moved = FLOAT_BYTES * (read.channels * read.size**2 + out.channels * out.size**2)
    ends = (read.channels, out.channels)
    return Layer(name, *ends, kernel, stride, read.size, operator.macs, moved, FLOAT_BYTES * operator.params)


def _join(in_channels: int, out: Tensor) -> Layer:
    """Return the layer of data that are only joined or added."""
    moved = FLOAT_BYTES * out.size**2 * (in_channels + out.channels)
    return Layer("move", in_channels, out.channels, 1, 1, out.size, 0, moved, 0)


def _is_pyramid(operator: Operator, written: Mapping[int, Operator]) -> bool:
    """Return whether the outputs of convolutions are joined as they are."""
    writers = [written.get(tensor.number) for tensor in operator.reads]
    return all(writer is not None and writer.is_convolution for writer in writers)


def _branches(operator: Operator, written: Mapping[int, Operator]) -> int:
    """Return the number of convolutions that sums add up."""
    if operator.kind != "sum":
        return 1
    return sum(_branches(written[tensor.number], written) for tensor in operator.reads)
