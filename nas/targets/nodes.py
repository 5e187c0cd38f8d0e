"""The nodes of a .tflite: what the converter makes of a folded network's operators.

In channels-last order, each convolution with its bias and its activation inside where the runtime has it there.
"""

from collections.abc import Callable
from typing import NamedTuple

from nas.blocks.complexity import CountedPart, Operator
from nas.blocks.geometry import POOL_KERNEL
from nas.costs.analytic import folded

Shape = tuple[int, ...]

WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_FUSING = (*WEIGHTED[:2], "ADD")
"""Nodes that apply a ReLU themselves."""


class Node(NamedTuple):
    """One node: its kind in the schema's words, the activations that it reads by number, and the one that it writes."""

    kind: str
    reads: tuple[int, ...]
    writes: int
    shape: Shape
    """Of the output."""
    weights: Shape = ()
    constant: Shape = ()
    """Another constant input, such as paddings: what tells it from others of this kind."""

    @property
    def channels(self) -> int:
        return self.shape[-1]


def nodes_of(part: CountedPart) -> tuple[Node, ...]:
    """List the nodes of one part; activation 0 is its input, the last node writes its output."""
    lowering = _Lowering()
    for operator in folded(part):
        lowering.add(operator)
    return tuple(lowering.nodes)


def normalisation(channels: int, resolution: int) -> tuple[Node, ...]:
    """Return the node in front of every network, see :mod:`nas.export.litert`."""
    return (Node("DEPTHWISE_CONV_2D", (0,), 1, (1, resolution, resolution, channels), (1, 1, 1, channels)),)


class _Lowering:
    """Nodes so far, and which activation each of the operators' tensors is."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._activations = {0: 0}

    def add(self, operator: Operator) -> None:
        """Add an operator's nodes."""
        kind = operator.kind.removeprefix("conditional ")
        method: Callable[[Operator], None] = {
            "conv": self._convolution,
            "grouped": self._convolution,
            "depthwise": self._convolution,
            "max pool": self._pool,
            "average pool": self._pool,
            "squeeze-excitation": self._squeeze_excitation,
            "shuffle": self._shuffle,
            "relu": self._relu,
            "relu6": self._relu,
            "silu": self._silu,
        }.get(kind, self._plain)
        method(operator)
        self._activations[operator.writes.number] = self.nodes[-1].writes

    def _write(self, kind: str, reads: tuple[int, ...], shape: Shape, weights: Shape = (), constant: Shape = ()) -> int:
        number = len(self.nodes) + 1
        self.nodes.append(Node(kind, reads, number, shape, weights, constant))
        return number

    def _reads(self, operator: Operator) -> tuple[int, ...]:
        return tuple(self._activations[tensor.number] for tensor in operator.reads)

    def _padded(self, operator: Operator, kind: str) -> int:
        """Pad as torch does where that is not what the runtime calls ``SAME``; return the activation to read."""
        (number,), read, out = self._reads(operator), operator.reads[0], operator.writes
        torch_pads = 2 * (operator.kernel // 2)
        same_pads = max((out.size - 1) * operator.stride + operator.kernel - read.size, 0)
        if operator.padding != "same" or operator.kernel == 1 or torch_pads == same_pads:
            return number
        side = read.size + torch_pads
        return self._write(kind, (number,), (1, side, side, read.channels), constant=(4, 2, operator.kernel // 2))

    def _convolution(self, operator: Operator) -> None:
        out = operator.writes
        number = self._padded(operator, "PAD")
        shape, kernel = (1, out.size, out.size, out.channels), operator.kernel
        if operator.kind.endswith("depthwise"):
            self._write("DEPTHWISE_CONV_2D", (number,), shape, (1, kernel, kernel, out.channels))
        else:
            inputs = operator.weights // (out.channels * kernel**2)
            self._write("CONV_2D", (number,), shape, (out.channels, kernel, kernel, inputs))

    def _pool(self, operator: Operator) -> None:
        out, largest = operator.writes, operator.kind == "max pool"
        assert operator.kernel == POOL_KERNEL
        number = self._padded(operator, "PADV2" if largest else "PAD")
        kind = "MAX_POOL_2D" if largest else "AVERAGE_POOL_2D"
        self._write(kind, (number,), (1, out.size, out.size, out.channels))

    def _squeeze_excitation(self, operator: Operator) -> None:
        (number,), out, inner = self._reads(operator), operator.writes, operator.width
        pooled = self._write("MEAN", (number,), (1, 1, 1, out.channels), constant=(2,))
        squeezed = self._write("CONV_2D", (pooled,), (1, 1, 1, inner), (inner, 1, 1, out.channels))
        excited = self._write("CONV_2D", (squeezed,), (1, 1, 1, out.channels), (out.channels, 1, 1, inner))
        scale = self._write("LOGISTIC", (excited,), (1, 1, 1, out.channels))
        self._write("MUL", (scale, number), (1, out.size, out.size, out.channels))

    def _shuffle(self, operator: Operator) -> None:
        (number,), out = self._reads(operator), operator.writes
        first, image = (1, out.channels, out.size, out.size), (1, out.size, out.size, out.channels)
        grouped = (1, 1, *first[1:])  # of five dimensions; their order does not matter here
        number = self._write("TRANSPOSE", (number,), first, constant=(4,))
        number = self._write("RESHAPE", (number,), grouped, constant=(5,))
        number = self._write("TRANSPOSE", (number,), grouped, constant=(5,))
        number = self._write("RESHAPE", (number,), first, constant=(4,))
        self._write("TRANSPOSE", (number,), image, constant=(4,))

    def _relu(self, operator: Operator) -> None:
        (number,) = self._reads(operator)
        writer = self.nodes[number - 1] if number else None
        if writer is None or writer is not self.nodes[-1] or not self._fuses(writer):
            self._plain(operator)

    def _fuses(self, node: Node) -> bool:
        """Return whether a node applies a ReLU itself, or convolutions do whose outputs it concatenates."""
        if node.kind != "CONCATENATION":
            return node.kind in _FUSING
        return all(number and self.nodes[number - 1].kind in WEIGHTED for number in node.reads)

    def _silu(self, operator: Operator) -> None:
        (number,), out = self._reads(operator), operator.writes
        shape = (1, out.size, out.size, out.channels)
        gate = self._write("LOGISTIC", (number,), shape)
        self._write("MUL", (number, gate), shape)

    def _plain(self, operator: Operator) -> None:
        out, reads = operator.writes, self._reads(operator)
        shape: Shape = (1, out.size, out.size, out.channels)
        kind = {"sum": "ADD", "concat": "CONCATENATION", "hard_swish": "HARD_SWISH"}.get(operator.kind, "")
        if operator.kind == "global pool":
            self._write("MEAN", reads, (1, out.channels), constant=(2,))
        elif operator.kind == "linear":
            inputs = operator.weights // out.channels
            self._write("FULLY_CONNECTED", reads, (1, out.channels), (out.channels, inputs))
        else:
            self._write(kind or operator.kind.upper(), reads, shape)
