"""Operators of a network and their costs, recorded while walking through it, without building it.

A :class:`Recorder` follows one image through the layers: it knows the current tensor, and each method stands for one
layer. The blocks (:mod:`nas.blocks`) call it in a method beside their layers. What it leaves is a list of *operators*
with the tensors that they read and write; every cost is a sum or a plan over that list.

What counts: MACs are multiply-accumulates of convolutions and linear layers for one image (1 MAC = 2 FLOPs), the mixing
of conditional convolution's experts included; normalisation, activation, pooling and addition count nothing.

Peak activation memory is that of an inference runtime, in fp32 for one image: a tensor lives from the operator that
writes it to the last one that reads it; normalisation, activation, SE's scaling, addition and concatenation happen in
place; padding and the vectors of pooled channels beside the image tensors count nothing.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from nas.blocks.geometry import POOL_KERNEL, Padding, convolved, pooled

FLOAT_BYTES = 4
NORM_COUNTER_BYTES = 8  # BatchNorm's num_batches_tracked, one int64 per layer
ACTIVATIONS = ("relu", "relu6", "hard_swish", "silu")
PLAIN_CONVOLUTIONS = ("conv", "depthwise", "grouped")
CONVOLUTIONS = frozenset(PLAIN_CONVOLUTIONS + tuple(f"conditional {kind}" for kind in PLAIN_CONVOLUTIONS))
IN_PLACE = frozenset(("norm", "squeeze-excitation", "add", "sum", "concat", *ACTIVATIONS))


class Tensor(NamedTuple):
    """One image's tensor; `size` is its side in pixels."""

    number: int
    channels: int
    size: int


class Operator(NamedTuple):
    """One operator of a network, before anything is folded."""

    kind: str
    """``conv``, ``depthwise``, ``grouped``, each also as ``conditional ...``; ``linear``, ``norm``,
    ``squeeze-excitation``, ``max pool``, ``average pool``, ``global pool``, ``shuffle``; the activations;
    ``add`` of a shortcut, ``sum`` of a pyramid, ``concat``."""
    reads: tuple[Tensor, ...]
    writes: Tensor
    kernel: int = 1
    stride: int = 1
    padding: Padding = "same"
    weights: int = 0
    """Of one expert, without biases."""
    biases: int = 0
    width: int = 1
    """Experts of a conditional convolution; inner channels of SE."""
    params: int = 0
    macs: int = 0

    @property
    def is_convolution(self) -> bool:
        return self.kind in CONVOLUTIONS


@dataclass(frozen=True, slots=True, eq=False)  # equal to itself alone, so that caches need no hash of all operators
class CountedPart:
    """A part of a network (stem, block, head): what its operators add up to, and how to list them again.

    A search meets tens of thousands of parts and counts all of them; kept lists would slow the garbage collector down.
    """

    record: Callable[[], Sequence[Operator]]
    """Lists the operators; tensor 0 is the part's input."""
    params: int
    buffer_bytes: int
    macs: int
    conv_macs: int
    """MACs of convolutions alone: no linear layer, SE or routing (Kuo, Table 4)."""
    conv_params: int
    """Weights of convolutions alone (Kuo, Table 4)."""
    peak_bytes: int
    """Largest sum of the tensors alive at once."""

    @classmethod
    def of(cls, record: Callable[[], Sequence[Operator]]) -> Self:
        """Record a part and count it."""
        operators = record()
        params = buffer_bytes = macs = conv_macs = conv_params = 0
        for operator in operators:
            params += operator.params
            macs += operator.macs
            if operator.kind == "norm":
                buffer_bytes += 2 * FLOAT_BYTES * operator.writes.channels + NORM_COUNTER_BYTES
            elif operator.kind in CONVOLUTIONS:
                conv_macs += operator.weights * operator.writes.size**2
                conv_params += operator.width * operator.weights
        counts = (params, buffer_bytes, macs, conv_macs, conv_params)
        return cls(record, *counts, peak_bytes(operators))


class Recorder:
    """Operators so far, and the tensor that the next layer reads: :attr:`here`, which a block may set back.

    Args:
        channels: of the first tensor.
        size: its side in pixels.
        activation: the network's.
        biased: the network has no norm: a convolution has a bias instead.
    """

    def __init__(self, channels: int, size: int, *, activation: str, biased: bool) -> None:
        self.here = Tensor(0, channels, size)
        self.operators: list[Operator] = []
        self.activation = activation
        self.biased = biased

    def conv(
        self,
        out_channels: int,
        kernel: int = 1,
        *,
        stride: int = 1,
        groups: int = 1,
        padding: Padding = "same",
        bias: bool | None = None,
        experts: int = 1,
    ) -> None:
        """A convolution; with several experts a conditional one (:class:`nas.blocks.layers.CondConv2d`).

        Args:
            bias: whether it has one (None: where the network has no norm).
        """
        channels = self.here.channels
        weights = out_channels * (channels // groups) * kernel**2
        biases = out_channels if (self.biased if bias is None else bias) else 0
        size = convolved(self.here.size, kernel, stride, padding)
        kind = "conv" if groups == 1 else "depthwise" if groups == channels else "grouped"
        params, macs = experts * (weights + biases), weights * size**2
        if experts > 1:
            kind = f"conditional {kind}"
            macs += params + channels * experts  # mixing and routing
            params += channels * experts + experts
        shape = (kernel, stride, padding, weights, biases, experts)
        self._write(kind, out_channels, size, *shape, params, macs)

    def pyramid(
        self,
        kernels: tuple[int, ...],
        combine: str,
        *,
        stride: int,
        padding: Padding = "same",
        experts: int = 1,
        depthwise: bool = True,
    ) -> None:
        """Parallel convolutions of one input, added or concatenated (:class:`nas.blocks.layers.Pyramid`)."""
        start = self.here
        branches: list[Tensor] = []
        for kernel in sorted(kernels):
            self.here = start
            groups = start.channels if depthwise else 1
            self.conv(start.channels, kernel, stride=stride, groups=groups, padding=padding, experts=experts)
            if branches and combine == "add":  # one by one, so that no more than two outputs are alive
                self._join("sum", (branches.pop(), self.here), start.channels)
            branches.append(self.here)
        if len(branches) > 1:
            self.concat(*branches)

    def norm(self) -> None:
        """BatchNorm of the current tensor, in networks that have it."""
        if not self.biased:
            self._write("norm", self.here.channels, self.here.size, params=2 * self.here.channels)

    def activate(self) -> None:
        """The network's activation."""
        self._write(self.activation, self.here.channels, self.here.size)

    def norm_act(self) -> None:
        """BatchNorm, in networks that have it, and activation."""
        self.norm()
        self.activate()

    def squeeze_excitation(self, squeeze_channels: int) -> None:
        """Two 1x1 layers with bias on the pooled tensor, whose result scales it."""
        channels = self.here.channels
        weights, biases = 2 * channels * squeeze_channels, channels + squeeze_channels
        counts = {"weights": weights, "biases": biases, "params": weights + biases, "macs": weights}
        self._write("squeeze-excitation", channels, self.here.size, width=squeeze_channels, **counts)

    def pool(self, stride: int, padding: Padding, kind: str = "max pool") -> None:
        """3x3 pooling."""
        size = pooled(self.here.size, stride, padding)
        self._write(kind, self.here.channels, size, POOL_KERNEL, stride, padding)

    def pool_all(self) -> None:
        """Global average pooling."""
        self._write("global pool", self.here.channels, 1)

    def shuffle(self) -> None:
        """A permutation of the channels, which no layer can do in place."""
        self._write("shuffle", self.here.channels, self.here.size)

    def linear(self, out_features: int) -> None:
        """A linear layer with bias on the flattened tensor."""
        weights = self.here.channels * self.here.size**2 * out_features
        counts = {"weights": weights, "biases": out_features, "params": weights + out_features, "macs": weights}
        self._write("linear", out_features, 1, **counts)

    def add(self, other: Tensor) -> None:
        """Add another tensor of the same shape to the current one."""
        self._join("add", (self.here, other), self.here.channels)

    def concat(self, *tensors: Tensor) -> None:
        """Concatenate tensors along their channels."""
        self._join("concat", tensors, sum(tensor.channels for tensor in tensors))

    def _join(self, kind: str, tensors: tuple[Tensor, ...], channels: int) -> None:
        self.here = Tensor(len(self.operators) + 1, channels, tensors[0].size)
        self.operators.append(Operator(kind, tensors, self.here))

    def _write(self, kind: str, channels: int, size: int, *shape: int | str, **counts: int) -> None:
        """The current tensor is read and another is written."""
        read = (self.here,)
        self.here = Tensor(len(self.operators) + 1, channels, size)
        self.operators.append(Operator(kind, read, self.here, *shape, **counts))  # type: ignore[arg-type]


def peak_bytes(operators: Sequence[Operator]) -> int:
    """Return the largest sum in fp32 of the tensors alive at once, as the module defines it."""
    if not operators:
        return 0
    first = operators[0].reads[0]
    sizes, written, last_read = [_bytes(first)], [0], [0]  # of the buffers that tensors lie in
    held: dict[int, tuple[int, ...]] = {first.number: (0,)}
    for step, operator in enumerate(operators):
        buffers = held[operator.reads[0].number]
        for tensor in operator.reads[1:]:
            buffers += held[tensor.number]
        for buffer in buffers:
            last_read[buffer] = step
        out = operator.writes
        if operator.kind == "concat":
            held[out.number] = buffers
        elif operator.kind in IN_PLACE:
            held[out.number] = held[operator.reads[0].number]
        else:
            held[out.number] = (len(sizes),)
            sizes.append(_bytes(out))
            written.append(step)
            last_read.append(step)
    changes = [0] * (len(operators) + 1)
    for size, begin, end in zip(sizes, written, last_read, strict=True):
        changes[begin] += size
        changes[end + 1] -= size
    return max(itertools.accumulate(changes))


def _bytes(tensor: Tensor) -> int:
    return FLOAT_BYTES * tensor.channels * tensor.size * tensor.size
